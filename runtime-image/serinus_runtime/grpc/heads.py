"""Request heads: HPACK by the `hpack` package, the rules of RFC 9113 section 8 and gRPC's, a memory for repeats.

A client that calls the same method again sends a header block of a few bytes that only point into the connection's
table. As long as the table is as it was, equal bytes mean equal headers, so those are looked up and not decoded.
"""

from __future__ import annotations

import re
from collections import deque
from typing import cast

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from serinus_runtime.grpc.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFaultError

_KNOWN = 64
"""Blocks that a connection remembers."""
_LONGEST = 256
"""Longer blocks are not remembered."""
_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Head:
    """The head of a request. `fault`: why it is malformed (b"" when it is not)."""

    __slots__ = ("content_length", "fault", "fields", "grpc", "method", "path", "timeout", "trailers")

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.fields: dict[bytes, bytes] = {}
        """Everything that is not a pseudo-header; repeated ones joined by a comma."""
        self.trailers = True
        """True when there is no pseudo-header, so that it can only be trailers."""
        self.content_length = -1
        self.timeout = -1.0
        """Seconds that the client waits; negative when it did not say."""
        self.fault = self._read(pairs)
        fields = self.fields
        self.grpc = self.method == b"POST" and _is_grpc(fields.get(b"content-type", b""))
        if not self.fault:
            self._read_values()

    def _read(self, pairs: list[tuple[bytes, bytes]]) -> str:
        pseudo: dict[bytes, bytes] = {}
        fields = self.fields
        fault = ""
        for name, value in pairs:
            if name[:1] == b":":
                if fields or name in pseudo or name not in _PSEUDO:
                    fault = "a pseudo-header that is unknown, repeated, or behind other headers"
                pseudo[name] = value
            else:
                if name != name.lower() or name in _CONNECTION or not name:
                    fault = "a header that HTTP/2 forbids"
                elif name == b"te" and value != b"trailers":
                    fault = "te must be trailers"
                fields[name] = fields[name] + b"," + value if name in fields else value
        self.trailers = not pseudo
        self.method = pseudo.get(b":method", b"")
        self.path = pseudo.get(b":path", b"")
        if pseudo and not (self.method and self.path and pseudo.get(b":scheme")):
            fault = fault or "a pseudo-header is missing"
        return fault

    def _read_values(self) -> None:
        fields = self.fields
        length = fields.get(b"content-length")
        if length is not None:
            if not (length.isdigit() and len(length) < 16):
                self.fault = "content-length is not a number"
                return
            self.content_length = int(length)
        timeout = fields.get(b"grpc-timeout")
        if timeout is not None:
            found = _TIMEOUT.fullmatch(timeout)
            if found is None:
                self.fault = "grpc-timeout is not a time"
                return
            self.timeout = int(found[1]) * _UNITS[found[2]]


class Heads:
    """The header blocks of one connection, in the order in which they come."""

    __slots__ = ("_decoder", "_known", "_max_headers", "_table")

    def __init__(self, max_bytes: int, max_headers: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_bytes)
        self._table = self._decoder.header_table
        self._known: dict[bytes, Head] = {}
        self._max_headers = max_headers

    def read(self, block: bytes) -> Head:
        """The head in `block`. Raises ConnectionFaultError: after a block that cannot be read, none can."""
        found = self._known.get(block)
        if found is not None:
            return found
        table = self._table
        # As objects: entries are told apart by identity, which tuples that mypyc unpacks and packs again do not keep.
        entries = cast("deque[object]", table.dynamic_entries)
        newest = entries[0] if entries else None
        count, size = len(entries), table.maxsize
        try:
            pairs = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise ConnectionFaultError(ENHANCE_YOUR_CALM, "the headers are too large") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFaultError(COMPRESSION_ERROR, f"not HPACK: {error}") from None
        if len(pairs) > self._max_headers:
            raise ConnectionFaultError(ENHANCE_YOUR_CALM, "there are too many headers")
        head = Head(pairs)
        known = self._known
        if len(entries) != count or table.maxsize != size or (entries[0] if entries else None) is not newest:
            known.clear()
        elif len(block) <= _LONGEST and not head.fault:
            if len(known) >= _KNOWN:
                known.clear()
            known[block] = head
        return head


def _is_grpc(content_type: bytes) -> bool:
    return content_type == b"application/grpc" or content_type.startswith(
        (b"application/grpc+proto", b"application/grpc;")
    )
