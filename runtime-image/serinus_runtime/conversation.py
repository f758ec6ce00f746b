"""Inference over a WebSocket: one request of the Open Inference Protocol per message, answered in order.

A message is what the body of `POST .../infer` would be, and goes the same way: the same checks, queue, batches, counts
and log. Requests of one connection run at the same time, up to a window; further messages are not read until there is
room. An answer is the body of the HTTP answer; one that is not 200 has `code` and the request's `id` beside `error`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from serinus_runtime.http import JSON, Exchange
from serinus_runtime.http.websocket import HandshakeError, WebSocket, handshake

WINDOW = 64
"""Requests of one connection that are under way at most."""
_PER_REQUEST = (
    b"x-request-id",
    b"content-length",
    b"content-type",
    b"content-encoding",
    b"inference-header-content-length",
)
_SMALL_BYTES = 16 << 10
Handle = Callable[[Exchange], None]


class _Known(msgspec.Struct):
    id: str | None = None


_known = msgspec.json.Decoder(_Known)


class Conversation:
    """The requests of one WebSocket; `handle` answers them. `opening` is the request that opened it, `target` where
    the messages would have been posted to."""

    def __init__(self, socket: WebSocket, handle: Handle, opening: Exchange, target: bytes) -> None:
        self._socket = socket
        self._handle = handle
        self._target = target
        self._headers = {name: value for name, value in opening.headers.items() if name not in _PER_REQUEST}
        self._connection = opening.connection
        self._prefix = opening.known_id()[:100]
        self._number = 0
        self._waiting: deque[tuple[Exchange, bytes | str | None, bool]] = deque()
        """With the message, or no more than its id where it is large, and whether it was text."""
        self._held = False

    def message(self, data: bytes, text: bool) -> None:
        """One request."""
        exchange = Exchange(self._answer, self._connection)
        exchange.method = b"POST"
        exchange.target = self._target
        exchange.headers = self._headers
        exchange.body = data
        exchange.received = time.monotonic()
        exchange.request_id = b"%b-%d" % (self._prefix, self._number)
        self._number += 1
        self._waiting.append((exchange, data if len(data) <= _SMALL_BYTES else _id(data), text))
        if len(self._waiting) >= WINDOW:
            self._held = True
            self._socket.hold(True)
        self._handle(exchange)

    def idle(self) -> bool:
        """True when everything is answered."""
        return not self._waiting

    def gone(self) -> None:
        """The client is gone: what waits is not run."""
        waiting, self._waiting = self._waiting, deque()
        for exchange, _, _ in waiting:
            if exchange.answer is None and exchange.on_gone is not None:
                exchange.on_gone()

    def _answer(self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: bytes) -> None:
        if exchange.answer is not None:
            return
        exchange.on_gone = None
        if status == 200 and content_type != JSON:
            status, body = 400, b'{"error":"raw tensors need HTTP: over a WebSocket ask for outputs as JSON"}'
        exchange.answer = body if status == 200 else self._told(exchange, status, body)
        waiting = self._waiting
        while waiting and (answer := waiting[0][0].answer) is not None:
            _, _, text = waiting.popleft()
            self._socket.send(answer, text=text)
        if self._held and len(waiting) < WINDOW:
            self._held = False
            self._socket.hold(False)

    def _told(self, exchange: Exchange, status: int, body: bytes) -> bytes:
        told = msgspec.json.decode(body, type=dict[str, object])
        told["code"] = status
        for each, message, _ in self._waiting:
            if each is exchange and (known := _id(message) if isinstance(message, bytes) else message) is not None:
                told["id"] = known
        return msgspec.json.encode(told)


def _id(message: bytes) -> str | None:
    try:
        return _known.decode(message).id
    except (ValueError, RecursionError):
        return None


def converse(exchange: Exchange, handle: Handle, target: bytes) -> None:
    """Opens a conversation on the connection of `exchange`, or answers why not."""
    try:
        lines = handshake(exchange)
    except HandshakeError as error:
        exchange.respond(error.status, msgspec.json.encode({"error": str(error)}), headers=error.headers)
        return
    assert exchange.connection is not None
    site = exchange.connection.site
    socket = WebSocket(site, site.limits.body_bytes)
    socket.listener = Conversation(socket, handle, exchange, target)
    exchange.take_over(lines, socket)
