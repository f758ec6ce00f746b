"""One request on its way through: checks, the queue, the engine, the answer, what is counted and logged."""

from __future__ import annotations

import asyncio
import time

import msgspec

from serinus_runtime import logs
from serinus_runtime.http import JSON, Exchange
from serinus_runtime.http.exchange import status_line
from serinus_runtime.ingress.deadlines import timeout_of
from serinus_runtime.problems import InvalidRequestError
from serinus_runtime.proxy import guarded, openai
from serinus_runtime.proxy.account import GONE, Account
from serinus_runtime.proxy.client import Upstream
from serinus_runtime.proxy.desk import Desk
from serinus_runtime.proxy.headers import answer_lines, request_head
from serinus_runtime.proxy.problems import FullError, Problem
from serinus_runtime.proxy.tunnel import End
from serinus_runtime.state import GOING
from serinus_runtime.tickets import Ticket

_WHOLE_BYTES = 64 << 10
"""Answers up to this size, where it is known, are sent in one piece."""
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))
_RETRY_SOON = b"retry-after: 1\r\n"
_PLAIN_ENCODING = frozenset((b"accept-encoding",))
_NOTHING: frozenset[bytes] = frozenset()


class Passage(Account):
    """From a whole request to the end of its answer. `counted`: it is an inference request."""

    def __init__(self, desk: Desk, exchange: Exchange, path: bytes, *, counted: bool) -> None:
        super().__init__(desk, exchange, path, counted=counted)
        self.admitted = False
        """True: it was let in before, as a job."""
        self._request = b""
        self._deadline: float | None = None
        self._phrase = b""
        self._lines = b""
        self._own = b""
        """Header lines that we add to any answer: how the client stands with its limit, its trace."""
        self._length: int | None = None
        self._pieces: list[bytes] = []

    # From the client.

    def start(self) -> None:
        """Checks and queues it."""
        exchange, desk, state = self._exchange, self._desk, self._desk.state
        if self._counted:
            desk.metrics.inflight += 1
        now = exchange.received
        if self._counted and state.tracing is not None:
            self._trace = state.tracing.begin(exchange.headers, self._path, now)
            self._own = self._trace.lines
        if state.refusing and not self.admitted:
            exchange.close = True
            self._refuse(*GOING)
            return
        if not desk.serving:
            self._refuse("not_ready", 503, "the engine is not ready yet", _RETRY_SOON)
            return
        try:
            if state.ingress is not None and not self.admitted:
                ticket = Ticket({}, 0, ())
                refusal = guarded.admit(state.ingress, exchange, ticket, self._path)
                self._client = ticket.client
                if refusal is not None:
                    self._refuse(*refusal)
                    return
                self._deadline = ticket.deadline
                self._own += ticket.lines
            elif (timeout := timeout_of(exchange.headers)) is not None:
                self._deadline = now + timeout
            if self._metered:
                self._body = openai.checked(self._path, self._body, desk.settings.models, desk.settings.max_tokens)
        except InvalidRequestError as error:
            self._refuse("invalid", 400, str(error))
            return
        except openai.RefusedError as error:
            desk.metrics.rejected["invalid"] += 1
            self._finish(error.status, openai.refusal(error))
            return
        number = desk.breaker.admit(time.monotonic())
        if number is None:
            wait = max(1, round(desk.breaker.retry_after(time.monotonic())))
            self._refuse("circuit_open", 503, "the engine does not answer", b"retry-after: %d\r\n" % wait)
            return
        self._number = number
        self.size = len(self._body)
        self._queued = time.monotonic()
        self.until = now + desk.queue_seconds
        if self._deadline is not None:
            self.until = min(self.until, self._deadline)
        try:
            desk.pool.put(self)
        except FullError as full:
            self._tell_circuit(None)
            wait = max(1, round(full.retry_after))
            self._refuse("queue_full", 429, "the queue is full: try again later", b"retry-after: %d\r\n" % wait)
            return
        exchange.body = b""
        if exchange.answer is None and exchange.streamed is None:
            exchange.on_gone = self.gone
            exchange.cancel_on_eof = True

    def gone(self) -> None:
        """The client has left, or was too slow: the engine need not go on."""
        if self._over:
            return
        if self._stream is not None:
            self._desk.meters.streamed["gone"] += 1
        self._leave()
        if self.upstream is not None:
            self.upstream.drop()
        self._record(GONE)

    def pause(self) -> None:
        """The client is slower than the engine."""
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self.upstream is not None and not self._over:
            self.upstream.resume()

    # From the pool.

    def begin(self, upstream: Upstream) -> None:
        """Sends it."""
        exchange, settings = self._exchange, self._desk.settings
        now = time.monotonic()
        if not self._sent:
            self._request = request_head(
                exchange.method,
                exchange.target,
                exchange.headers,
                host=settings.authority,
                request_id=exchange.known_id(),
                size=len(self._body),
                drop=_PLAIN_ENCODING if self._metered else _NOTHING,
                websocket=exchange.upgrade,
                traceparent=self._trace.traceparent() if self._trace is not None else b"",
            )
        self._sent = now
        deadline = now + settings.timeout
        if self._deadline is not None and self._deadline < deadline:
            deadline = self._deadline
        upstream.send(
            self._request + self._body,
            self,
            bodyless=exchange.method == b"HEAD",
            deadline=deadline,
            patience=settings.timeout,
        )

    def refused(self, problem: Problem) -> None:
        """The engine takes no connection."""
        self._desk.meters.errors["unreachable"] += 1
        self._tell_circuit(False)
        self._complain("not_ready", 503, str(problem), _RETRY_SOON)

    def overdue(self) -> None:
        """It waited for too long."""
        self._tell_circuit(None)
        self._complain("timeout", 504, "the request waited in the queue for longer than the queue timeout")

    # From the engine.

    def head(self, status: int, phrase: bytes, headers: list[tuple[bytes, bytes]], length: int | None) -> None:
        """The answer begins."""
        self._tell_circuit(True)
        self._status, self._phrase, self._length = status, phrase, length
        self._lines = answer_lines(headers) + self._own
        for name, value in headers:
            if name == b"content-type":
                self._sse = value[:17].lower() == b"text/event-stream"

    def piece(self, data: bytes) -> None:
        """A part of its body."""
        self._pieces.append(data)
        self._given += len(data)
        if not self._first:
            self._first = time.monotonic()
        if self._metered:
            self._tail = (self._tail + data)[-openai.TAIL_BYTES :]

    def fed(self) -> None:
        """Sends on what has come, unless it will be whole in a moment."""
        if self._length is not None and self._length <= _WHOLE_BYTES and self._stream is None:
            return
        if self._stream is None and not self._open_stream():
            return
        self._pass_on()

    def done(self) -> None:
        """The answer is whole."""
        desk, now = self._desk, time.monotonic()
        self.upstream = None
        desk.meters.upstream(now - self._sent)
        desk.pool.leave(self, now - self._sent)
        if self._stream is None and self._sse and not self._open_stream():
            return
        if self._stream is not None:
            self._pass_on()
            if self._over:
                return
            stream, self._stream = self._stream, None
            stream.end()
            desk.meters.streams -= 1
            desk.meters.streamed["whole"] += 1
            self._count_tokens(now)
            self._settle(self._status, (self._first or now) - self._exchange.received)
            return
        self._count_tokens(now)
        body = b"".join(self._pieces)
        lines = self._lines
        if self._exchange.method == b"HEAD" or self._status == 304:
            if self._length is not None:
                lines += b"content-length: %d\r\n" % self._length
        elif self._status != 204:
            lines += b"content-length: %d\r\n" % len(body)
        self._exchange.respond_raw(status_line(self._status, self._phrase), lines, body)
        self._settle(self._status, time.monotonic() - self._exchange.received)

    def upgraded(self, transport: asyncio.Transport, rest: bytes) -> None:
        """The engine speaks WebSocket from now on, and so do we, without listening."""
        desk = self._desk
        self.upstream = None
        if not self._exchange.upgrade:
            transport.abort()
            self._complain("", 502, "the engine switched protocols unasked")
            return
        desk.pool.leave(self)
        client = End(desk.settings.idle, self._tunnel_over)
        engine = End(desk.settings.idle, lambda: desk.tunnels.discard(engine))
        desk.tunnels.add(engine)
        client.other, engine.other = engine, client
        transport.set_protocol(engine)
        engine.connection_made(transport)
        if not self._exchange.take_over(self._lines + b"upgrade: websocket\r\n", client):
            engine.abort()
            self._over = True
            return
        desk.meters.streams += 1
        if rest:
            engine.data_received(rest)
        self._settle(101, time.monotonic() - self._exchange.received)

    def broken(self, problem: Problem) -> None:
        """The answer does not come, or not to its end."""
        desk = self._desk
        stale = self.upstream is not None and self.upstream.requests > 1
        self.upstream = None
        desk.meters.errors["timeout" if problem.timeout else "broken"] += 1
        if self._stream is not None:
            stream, self._stream = self._stream, None
            logs.event("warning", "a stream of the engine broke off", problem=str(problem), path=self._shown_path())
            self._over = True
            stream.fail()
            self._over = False
            desk.meters.streams -= 1
            desk.meters.streamed["broken"] += 1
            desk.pool.leave(self)
            self._settle(504 if problem.timeout else 502, time.monotonic() - self._exchange.received)
            return
        if stale and not problem.answered and not problem.timeout and not self.fresh:
            if self._exchange.method in _IDEMPOTENT:
                desk.meters.retries += 1
                desk.pool.again(self)
                return
            # The engine may close an idle connection at any moment: that alone is no sign of trouble.
            self._tell_circuit(None)
        late = self._deadline is not None and time.monotonic() >= self._deadline
        self._tell_circuit(None if late or problem.answered else False)
        if problem.timeout:
            self._complain("timeout", 504, "the client's time is over" if late else str(problem))
        else:
            self._complain("", 502, str(problem))

    # What becomes of it.

    def _open_stream(self) -> bool:
        desk = self._desk
        desk.meters.streams += 1
        stream = self._exchange.stream(self, status_line(self._status, self._phrase), self._lines, self._length)
        if stream is None:
            desk.meters.streams -= 1
            self.gone()
            return False
        self._stream = stream
        return True

    def _pass_on(self) -> None:
        pieces = self._pieces
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        if self._events == 0 and self._sse:
            self._desk.meters.first_byte(self._first - self._exchange.received)
        events = data.count(b"\n\n") or data.count(b"\r\n\r\n") if self._sse else 1
        self._events += events
        self._desk.meters.events += events
        stream = self._stream
        if stream is not None:
            stream.write(data)

    def _refuse(self, reason: str, status: int, message: str, headers: bytes = b"") -> None:
        if self._counted:
            rejected = self._desk.metrics.rejected
            rejected[reason] = rejected.get(reason, 0) + 1
        self._finish(status, msgspec.json.encode({"error": message}), headers)

    def _complain(self, reason: str, status: int, message: str, headers: bytes = b"") -> None:
        if self._over:
            return
        self._desk.pool.leave(self)
        if reason:
            self._refuse(reason, status, message, headers)
        else:
            self._finish(status, msgspec.json.encode({"error": message}), headers)

    def _finish(self, status: int, body: bytes, headers: bytes = b"") -> None:
        self._status = status
        self._exchange.respond(status, body, JSON, headers + self._own)
        self._settle(status, time.monotonic() - self._exchange.received)

    def _tunnel_over(self) -> None:
        self._desk.meters.streams -= 1

    def _shown_path(self) -> str:
        return self._path[:200].decode("latin-1")
