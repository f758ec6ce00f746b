"""A small HTTP/1.1 client over asyncio's transports, for measuring: it never retries and never hides an error."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import httptools


class RequestError(Exception):
    """A request without an answer. `kind` is connect, reset, timeout or protocol."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(slots=True)
class Answer:
    """Status and the two headers that say which model answered."""

    code: int = 0
    version: str = ""
    revision: str = ""
    body: bytearray = field(default_factory=bytearray)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer = Answer()
        self._waiting: asyncio.Future[Answer] | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> Answer:
        """Sends one request and returns its answer. Raises RequestError; the connection is then closed."""
        assert self._transport is not None
        assert self._waiting is None, "one request at a time"
        if not self.usable:
            raise RequestError("reset")
        self._answer, self._parser = Answer(), httptools.HttpResponseParser(self)
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Ends the connection; an answer still awaited fails as reset."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._waiting is None or self._parser is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("protocol")

    def eof_received(self) -> bool:
        """Called by asyncio: the server closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.usable = False
        self._fail("reset")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools."""
        lower = name.lower()
        if lower == b"x-model-version":
            self._answer.version = value.decode("latin-1")
        elif lower == b"x-serinus-revision":
            self._answer.revision = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Called by httptools."""
        self._answer.body += body

    def on_message_complete(self) -> None:
        """Called by httptools."""
        assert self._parser is not None
        if not self._parser.should_keep_alive():
            self.usable = False
        self._answer.code = self._parser.get_status_code()
        if self._waiting is not None and not self._waiting.done() and self._answer.code >= 200:
            self._waiting.set_result(self._answer)

    def _fail(self, kind: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(RequestError(kind))


class Client:
    """Asks one server, over a pool of kept connections or over a new one each time."""

    def __init__(self, host: str, port: int, timeout: float, max_idle: int = 64) -> None:
        self._host, self._port, self._timeout, self._max_idle = host, port, timeout, max_idle
        self._idle: list[Connection] = []

    async def ask(self, request: bytes, *, keep: bool) -> Answer:
        """Sends the request within the time-out. Raises RequestError."""
        try:
            async with asyncio.timeout(self._timeout):
                connection = self._take() if keep else None
                if connection is None:
                    connection = await self._open()
                answer = await connection.ask(request)
        except TimeoutError:
            raise RequestError("timeout") from None
        if keep and connection.usable and len(self._idle) < self._max_idle:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(Connection, self._host, self._port)
        except OSError:
            raise RequestError("connect") from None
        return connection
