"""HTTP/2 frames (RFC 9113, section 6): their numbers, and the bytes of those that the server sends."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">HBBBL")
"""Length (two bytes and one), type, flags, stream."""
HEAD_BYTES = 9
MAX_FRAME = 16384
"""The largest payload that the server takes; what every peer takes, too."""
MAX_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65535
DEFAULT_TABLE = 4096
"""Bytes of the HPACK table before a peer says otherwise."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

SETTING = struct.Struct(">HL")
_LONG = struct.Struct(">L")
_GOAWAY = struct.Struct(">LL")


class ConnectionFaultError(Exception):
    """The peer broke the rules, or a limit, so that the connection must end with this HTTP/2 error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFaultError(Exception):
    """As `ConnectionFaultError`, for one stream."""

    def __init__(self, stream: int, code: int, text: str) -> None:
        super().__init__(text)
        self.stream = stream
        self.code = code


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of `length` bytes."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return head(6 * len(values), SETTINGS, 0, 0) + b"".join(SETTING.pack(*pair) for pair in values.items())


def settings_ack() -> bytes:
    """The answer to a SETTINGS frame."""
    return head(0, SETTINGS, ACK, 0)


def ping_ack(payload: bytes) -> bytes:
    """The answer to a PING frame."""
    return head(8, PING, ACK, 0) + payload


def rst_stream(stream: int, code: int) -> bytes:
    """Ends a stream."""
    return head(4, RST_STREAM, 0, stream) + _LONG.pack(code)


def window_update(stream: int, size: int) -> bytes:
    """Allows the peer `size` more bytes, on a stream or (0) on the connection."""
    return head(4, WINDOW_UPDATE, 0, stream) + _LONG.pack(size)


def goaway(last: int, code: int, text: str = "") -> bytes:
    """Streams above `last` were not, and will not be, looked at."""
    debug = text.encode()[:200]
    return head(8 + len(debug), GOAWAY, 0, 0) + _GOAWAY.pack(last, code) + debug


def headers(stream: int, block: bytes, flags: int) -> bytes:
    """A header block in HEADERS and, where it is long, CONTINUATION frames. `flags` without END_HEADERS."""
    if len(block) <= MAX_FRAME:
        return head(len(block), HEADERS, flags | END_HEADERS, stream) + block
    parts = [head(MAX_FRAME, HEADERS, flags, stream), block[:MAX_FRAME]]
    for at in range(MAX_FRAME, len(block), MAX_FRAME):
        part = block[at : at + MAX_FRAME]
        parts += (head(len(part), CONTINUATION, END_HEADERS if at + MAX_FRAME >= len(block) else 0, stream), part)
    return b"".join(parts)
