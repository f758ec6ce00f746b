"""The end of an answer to a job that the engine beside us works on: without a client, it is kept until it is whole."""

from __future__ import annotations

from typing import cast

from serinus_runtime.http import Exchange, Site
from serinus_runtime.http.streaming import Producer, Stream, Successor


class JobEnd:
    """Stands in the place of a connection. An answer of more than `limit` bytes is not kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    @property
    def site(self) -> Site:
        """There is none."""
        raise NotImplementedError

    def known_id(self, exchange: Exchange) -> bytes:
        """The job has had its id from the start."""
        return exchange.request_id

    def answer_raw(self, exchange: Exchange, status: bytes, headers: bytes, body: bytes) -> None:
        """The answer, as the job keeps it."""
        content_type, lines = _parted(headers)
        exchange.respond(int(status.split(b" ", 2)[1]), body, content_type, lines)

    def stream(
        self, exchange: Exchange, producer: Producer, status: bytes, headers: bytes, length: int | None
    ) -> Stream | None:
        """Gathers what comes in pieces."""
        return cast(Stream, _Gathering(self, exchange, producer, status, headers, self._limit))

    def take_over(self, exchange: Exchange, headers: bytes, successor: Successor) -> bool:
        """Nobody speaks WebSocket here."""
        return False


class _Gathering:
    """What a passage needs of a stream."""

    def __init__(
        self, end: JobEnd, exchange: Exchange, producer: Producer, status: bytes, headers: bytes, limit: int
    ) -> None:
        self._end = end
        self._exchange = exchange
        self._producer = producer
        self._status = status
        self._headers = headers
        self._left = limit
        self._pieces: list[bytes] = []
        self._over = False

    def write(self, data: bytes) -> None:
        """Keeps a piece."""
        if self._over:
            return
        self._left -= len(data)
        self._pieces.append(data)
        if self._left < 0:
            self._fail(502, b"the engine's answer is larger than what may be kept")
            self._producer.gone()

    def end(self) -> None:
        """The answer is whole."""
        if not self._over:
            self._over = True
            self._end.answer_raw(self._exchange, self._status, self._headers, b"".join(self._pieces))

    def fail(self) -> None:
        """There will be no end of it."""
        self._fail(502, b"the engine broke its answer off")

    def _fail(self, status: int, text: bytes) -> None:
        if not self._over:
            self._over = True
            self._pieces = []
            self._exchange.respond(status, b'{"error":"%b"}' % text)


def _parted(lines: bytes) -> tuple[bytes, bytes]:
    """The content type among header lines, and the others; a job's result knows its own length."""
    content_type, others = b"application/octet-stream", []
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-type":
            content_type = value.strip()
        elif line and name.lower() != b"content-length":
            others.append(line + b"\r\n")
    return content_type, b"".join(others)
