"""A client that writes HTTP/2 by hand, so that tests can break its rules."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import hpack

from serinus_runtime.grpc import frames
from unit.runtime.support import WAIT

ASK = "/inference.GRPCInferenceService/ModelInfer"
HEALTH = "/grpc.health.v1.Health/Check"


class Frame(NamedTuple):
    """A frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        at = 4 if self.kind == frames.GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


class Answer(NamedTuple):
    """A call's answer: headers and trailers together, messages, and the code of a reset (None: there was none)."""

    fields: dict[str, str]
    messages: list[bytes]
    reset: int | None

    @property
    def status(self) -> int:
        """The gRPC status; -1 when there is none."""
        return int(self.fields.get("grpc-status", -1))


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket, settings: dict[int, int]) -> None:
        self.sock = sock
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self._data = b""
        self.goaway: Frame | None = None
        self._answers: dict[int, tuple[dict[str, str], bytearray, list[int]]] = {}
        self._done: list[int] = []
        self.acknowledged: list[bytes] = []
        self.send(frames.PREFACE + frames.settings(settings))

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.sock.sendall(data)

    def block(self, path: str = ASK, more: dict[str, str] | None = None, *, grpc: bool = True) -> bytes:
        """The header block of a call."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "t")]
        if grpc:
            fields += [("te", "trailers"), ("content-type", "application/grpc")]
        return self._encoder.encode([*fields, *(more or {}).items()])

    def begin(self, stream: int, path: str = ASK, more: dict[str, str] | None = None, flags: int = 0) -> None:
        """The headers of a call."""
        self.send(frames.headers(stream, self.block(path, more), flags))

    def data(self, stream: int, payload: bytes, flags: int = frames.END_STREAM) -> None:
        """DATA frames of at most 16 KiB."""
        parts = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
        self.send(
            b"".join(
                frames.head(len(part), frames.DATA, flags if index == len(parts) - 1 else 0, stream) + part
                for index, part in enumerate(parts)
            )
        )

    def call(self, stream: int, body: bytes, path: str = ASK, more: dict[str, str] | None = None) -> None:
        """A whole plain call."""
        head = frames.headers(stream, self.block(path, more), 0)
        whole = message(body)
        if len(whole) <= 16384:
            self.send(head + frames.head(len(whole), frames.DATA, frames.END_STREAM, stream) + whole)
        else:
            self.send(head)
            self.data(stream, whole)

    def frame(self) -> Frame | None:
        """The next frame; None when the server has closed."""
        while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3], "big"):
            try:
                more = self.sock.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            self._data += more
        length = int.from_bytes(self._data[:3], "big")
        kind, flags = self._data[3], self._data[4]
        stream = int.from_bytes(self._data[5:9], "big")
        found = Frame(kind, flags, stream, self._data[9 : 9 + length])
        self._data = self._data[9 + length :]
        return found

    def frames(self) -> Iterator[Frame]:
        """All frames until the server closes, or the socket's timeout ends the test."""
        while (found := self.frame()) is not None:
            yield found

    def answer(self, stream: int) -> Answer:
        """Reads on until the call is answered."""
        while stream not in self._done:
            found = self.frame()
            assert found is not None, f"closed; {self.goaway}"
            self.take(found)
        fields, body, reset = self._answers[stream]
        messages = []
        while body:
            size = struct.unpack(">I", body[1:5])[0]
            messages.append(bytes(body[5 : 5 + size]))
            del body[: 5 + size]
        return Answer(fields, messages, reset[0] if reset else None)

    def take(self, found: Frame) -> None:
        """Puts a frame where it belongs."""
        if found.kind == frames.GOAWAY:
            self.goaway = found
        if found.kind == frames.PING and found.flags & frames.ACK:
            self.acknowledged.append(found.payload)
        if not found.stream:
            return
        fields, body, reset = self._answers.setdefault(found.stream, ({}, bytearray(), []))
        if found.kind == frames.HEADERS:
            fields.update(dict(self._decoder.decode(found.payload)))
        elif found.kind == frames.DATA:
            body += found.payload
        elif found.kind == frames.RST_STREAM:
            reset.append(found.code)
        if (found.kind in (frames.HEADERS, frames.DATA) and found.flags & frames.END_STREAM) or reset:
            self._done.append(found.stream)

    def received(self, stream: int) -> int:
        """Bytes of the answer so far."""
        return len(self._answers[stream][1]) if stream in self._answers else 0

    def ping(self) -> None:
        """Returns when the server has looked at everything that was sent."""
        payload = b"%08d" % len(self.acknowledged)
        self.send(frames.head(8, frames.PING, 0, 0) + payload)
        while payload not in self.acknowledged:
            found = self.frame()
            assert found is not None, f"closed; {self.goaway}"
            self.take(found)

    def end(self) -> Frame | None:
        """Reads until the server closes; its GOAWAY."""
        for found in self.frames():
            self.take(found)
        return self.goaway


def message(body: bytes) -> bytes:
    """A gRPC message."""
    return b"\0" + struct.pack(">I", len(body)) + body


@contextmanager
def connect(port: int, settings: dict[int, int] | None = None) -> Iterator[Client]:
    """A connection that has greeted."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as sock:
        yield Client(sock, settings or {})
