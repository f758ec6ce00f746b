"""Headers on their way through. RFC 9110, section 7.6, says which belong to one connection only and stay there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NOT_ASKED = HOP_BY_HOP | {b"expect", b"content-length", b"x-request-id", b"via", b"host"}
_NOT_ANSWERED = HOP_BY_HOP | {
    b"content-length",
    b"date",
    b"x-request-id",
    b"x-model-version",
    b"x-model-digest",
    b"x-serinus-revision",
}
"""What we say ourselves, once."""
_WITH_BODY = (b"POST", b"PUT", b"PATCH")
_VIA = b"1.1 serinus-runtime"
_NONE: frozenset[bytes] = frozenset()


def tokens(value: bytes) -> frozenset[bytes]:
    """The members of a comma-separated list, in lower case."""
    return frozenset(filter(None, (part.strip() for part in value.lower().split(b","))))


def request_head(
    method: bytes,
    target: bytes,
    headers: Mapping[bytes, bytes],
    *,
    host: bytes,
    request_id: bytes,
    size: int,
    drop: frozenset[bytes] = _NONE,
    websocket: bool = False,
    traceparent: bytes = b"",
) -> bytes:
    """The head of the request to the engine, up to and with the empty line; `size` is that of the body.

    `host` is used where the client named none. `drop` names further headers that are left out. With `websocket` the
    wish for the upgrade is passed on. `traceparent` stands in the place of the client's.
    """
    own = _NOT_ASKED | drop
    if b"connection" in headers:
        own |= tokens(headers[b"connection"])
    if traceparent:
        own |= {b"traceparent"}
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, _origin_form(target), headers.get(b"host") or host)]
    for name, value in headers.items():
        if name not in own:
            lines.append(b"%b: %b\r\n" % (name, value))
    known = headers.get(b"via")
    via = b"%b, %b" % (known, _VIA) if known else _VIA
    lines.append(b"via: %b\r\nx-request-id: %b\r\n" % (via, request_id))
    if traceparent:
        lines.append(b"traceparent: %b\r\n" % traceparent)
    if websocket:
        lines.append(b"connection: Upgrade\r\nupgrade: websocket\r\n")
    if size or method in _WITH_BODY:
        lines.append(b"content-length: %d\r\n" % size)
    lines.append(b"\r\n")
    return b"".join(lines)


def answer_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The engine's headers as lines for the client, without lengths and without what we say ourselves."""
    lines = []
    named = _NONE
    for name, value in headers:
        if name == b"connection":
            named |= tokens(value)
    for name, value in headers:
        if name not in _NOT_ANSWERED and name not in named:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def _origin_form(target: bytes) -> bytes:
    """Clients that believe they talk to a proxy send `http://host/path`; servers need not understand that."""
    if target[:1] == b"/" or b"://" not in target[:10]:
        return target
    path = target.partition(b"://")[2].partition(b"/")
    return b"/" + path[2]
