"""gRPC's status codes, and which of them stands for which HTTP status."""

from __future__ import annotations

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

_BY_HTTP = {
    200: OK,
    400: INVALID_ARGUMENT,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: NOT_FOUND,
    408: DEADLINE_EXCEEDED,
    413: RESOURCE_EXHAUSTED,
    415: UNIMPLEMENTED,
    429: RESOURCE_EXHAUSTED,
    499: CANCELLED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}
_MESSAGE_BYTES = 4096


def of_http(code: int) -> int:
    """The gRPC status for an HTTP status."""
    found = _BY_HTTP.get(code)
    if found is not None:
        return found
    return INVALID_ARGUMENT if 400 <= code < 500 else INTERNAL


def percent_encoded(text: str) -> bytes:
    """`text` as the value of `grpc-message`: UTF-8, what is not printable ASCII (and %) as %XX."""
    raw = text.encode("utf-8", "replace")[:_MESSAGE_BYTES]
    if raw.isascii() and b"%" not in raw and text.isprintable():
        return raw
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in raw)
