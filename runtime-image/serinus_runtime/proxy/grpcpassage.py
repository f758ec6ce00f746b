"""One gRPC call on its way to the engine beside us and back: its messages, its metadata, what is counted and logged."""

from __future__ import annotations

import time

from serinus_runtime.grpc.call import Call
from serinus_runtime.grpc.port import literal
from serinus_runtime.http import Exchange
from serinus_runtime.proxy import guarded
from serinus_runtime.proxy.gate import Waiting
from serinus_runtime.proxy.grpcdesk import GrpcDesk
from serinus_runtime.proxy.h2link import HELD_BYTES, Fields, Lane, Link
from serinus_runtime.proxy.problems import FullError, Problem
from serinus_runtime.proxy.record import Passed
from serinus_runtime.state import GOING
from serinus_runtime.tickets import Ticket
from serinus_runtime.tracing import Trace, trace_id

_LOGGED_BYTES = 64 << 10
_NOT_ASKED = frozenset(
    (b"te", b"content-length", b"grpc-timeout", b"grpc-encoding", b"x-request-id", b"host", b"via", b"expect")
)
_OURS = frozenset(
    (b"content-type", b"content-length", b"grpc-accept-encoding", b"x-request-id", b"x-model-version",
     b"x-model-digest", b"x-serinus-revision")
)  # fmt: skip
_CODES = {
    b"0": 200, b"1": 499, b"3": 400, b"4": 504, b"5": 404, b"6": 409, b"7": 403, b"8": 429, b"9": 400, b"10": 409,
    b"11": 400, b"12": 404, b"14": 503, b"16": 401,
}  # fmt: skip
"""The HTTP code that a status of the engine counts as; all others are 500."""
_RETRY_SOON = literal(b"grpc-retry-pushback-ms", b"1000")


class GrpcPassage(Waiting):
    """From the head of a call to its end. `counted`: it is an inference request."""

    def __init__(self, desk: GrpcDesk, call: Call, *, counted: bool) -> None:
        self._desk = desk
        self._call = call
        self._counted = counted
        self._path = call.head.path
        self._client = ""
        self._trace: Trace | None = None
        self._number = -1
        self._deadline = call.deadline
        self._lane: Lane | None = None
        self._held: list[bytes] = []
        """What came before there was a stream to the engine."""
        self._held_bytes = 0
        self._ended = False
        """True when the client has sent all."""
        self._body = b""
        """The first message, for the log."""
        self._messages = 0
        self._entered = 0.0
        self._first = 0.0
        self._given = 0
        self._heard = 0.0
        """When the engine was last heard of, or asked."""
        self._over = False
        call.on_gone = self.gone
        call.on_expired = self.expired
        call.on_drained = self.drained
        call.on_refused = self.refused

    # From the client.

    def start(self) -> None:
        """Checks and queues it."""
        call, desk, state = self._call, self._desk, self._desk.state
        if self._counted:
            desk.metrics.inflight += 1
        exchange = Exchange(lambda *_: None)
        exchange.method, exchange.target, exchange.headers = b"POST", self._path, call.head.fields
        exchange.peer, exchange.received = call.address, call.received
        if self._counted and state.tracing is not None:
            self._trace = state.tracing.begin(exchange.headers, self._path, call.received)
        if state.refusing:
            self._refuse(GOING.reason, GOING.status, GOING.message)
            return
        if not desk.serving():
            self._refuse("not_ready", 503, "the engine is not ready yet", _RETRY_SOON)
            return
        if state.ingress is not None:
            ticket = Ticket({}, 0, ())
            refusal = guarded.admit(state.ingress, exchange, ticket, self._path)
            self._client = ticket.client
            if refusal is not None:
                self._refuse(refusal.reason, refusal.status, refusal.message, desk.trailing(refusal.headers))
                return
            if ticket.lines:
                call.metadata += desk.trailing(ticket.lines)
            if ticket.deadline is not None:
                self._deadline = min(self._deadline, ticket.deadline)
        now = time.monotonic()
        number = desk.breaker.admit(now)
        if number is None:
            self._refuse("circuit_open", 503, "the engine does not answer", _RETRY_SOON)
            return
        self._number = number
        self.until = min(call.received + desk.queue_seconds, self._deadline)
        desk.passages.add(self)
        try:
            desk.gate.put(self)
        except FullError as full:
            desk.passages.discard(self)
            self._tell_circuit(None)
            pause = b"%d" % max(1000, round(full.retry_after * 1000))
            self._refuse(
                "queue_full", 429, "the queue is full: try again later", literal(b"grpc-retry-pushback-ms", pause)
            )

    def wants(self) -> bool:
        """False while the engine, or the queue, has enough of this call."""
        return (self._lane.held if self._lane is not None else self._held_bytes) <= HELD_BYTES

    def message(self, payload: bytes) -> None:
        """The next message."""
        if self._over:
            return
        self._messages += 1
        if self._messages == 1 and len(payload) <= _LOGGED_BYTES and self._desk.recorder is not None:
            self._body = payload
        self._send(b"\0" + len(payload).to_bytes(4, "big") + payload)

    def end(self) -> None:
        """The client sends no more."""
        self._ended = True
        if not self._over:
            self._heard = time.monotonic()
            self._send(b"")

    def gone(self) -> None:
        """The client has given up."""
        self._stop(499)
        if self._counted:
            self._desk.metrics.inflight -= 1

    def expired(self) -> None:
        """The client's deadline has passed."""
        self._complain("timeout", 504, "the deadline of the request has passed", good=None)

    def refused(self, code: int) -> None:
        """What the client sends is too large, or no gRPC: the connection tells it so."""
        self._settle(code)

    def drained(self) -> None:
        """The client has taken what was there."""
        if self._lane is not None and not self._over:
            self._lane.taken()

    # From the queue.

    def enter(self) -> None:
        """It is its turn."""
        self._entered = self._heard = time.monotonic()
        link = self._desk.links.ready()
        if link is not None:
            self._open(link)
        else:
            self._desk.begin(self._connect())

    def overdue(self) -> None:
        """It waited for too long."""
        self._complain("timeout", 504, "the request waited in the queue for longer than the queue timeout", good=None)

    def look(self, now: float) -> None:
        """Ends it when the engine has been silent for too long, or the time that a header allowed is over."""
        if now >= self._deadline:
            self.expired()
        elif self._entered:
            silent = self._desk.timeout if self._ended else self._desk.idle
            if now - self._heard > silent and not self._call.pending:
                self._desk.meters.errors["timeout"] += 1
                self._complain("timeout", 504, "the engine did not answer in time", good=False)

    # From the engine.

    def begun(self, fields: Fields) -> None:
        """The answer begins."""
        self._heard = time.monotonic()
        if not self._plausible(fields):
            return
        self._tell_circuit(True)
        self._call.metadata += _block(fields)
        self._call.begin()

    def data(self, payload: bytes) -> None:
        """A part of the answer, messages and the lengths before them."""
        self._heard = time.monotonic()
        if not self._first:
            self._first = self._heard
        self._given += len(payload)
        self._call.pass_on(payload)
        if not self._call.pending:
            self.drained()

    def ended(self, fields: Fields) -> None:
        """The answer is whole."""
        if self._over:
            return
        self._lane = None
        if not self._call.begun and not self._plausible(fields):
            return
        status = dict(fields).get(b"grpc-status", b"")
        if not status.isdigit() or len(status) > 3:
            self.broken("the engine ended the call without a status")
            return
        self._tell_circuit(True)
        self._call.close(int(status), _block(fields, without=b"grpc-status"))
        self._settle(_CODES.get(status, 500))

    def broken(self, why: str) -> None:
        """There will be no answer, or no end of it."""
        if self._over:
            return
        self._lane = None
        self._desk.meters.errors["broken"] += 1
        self._complain("", 503, why, good=None if self._call.begun else False)

    def room(self) -> None:
        """The engine has taken what waited."""
        self._call.more()

    # What becomes of it.

    async def _connect(self) -> None:
        try:
            link = await self._desk.links.get()
        except Problem as problem:
            if not self._over:
                self._desk.meters.errors["unreachable"] += 1
                self._complain("not_ready", 503, str(problem), good=False)
            return
        if not self._over:
            self._open(link)

    def _open(self, link: Link) -> None:
        held, self._held = self._held, []
        self._held_bytes = 0
        self._lane = lane = link.open(self._head(), self)
        lane.send(b"".join(held), last=self._ended)
        self._call.more()

    def _send(self, data: bytes) -> None:
        if self._lane is not None:
            self._lane.send(data, last=self._ended)
        else:
            self._held.append(data)
            self._held_bytes += len(data)
            self._desk.gate.grew(self, len(data))

    def _head(self) -> bytes:
        call, authority = self._call, self._desk.authority
        fields = call.head.fields
        pairs = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", self._path), (b":authority", authority),
            (b"te", b"trailers"), (b"x-request-id", call.identify()),
        ]  # fmt: skip
        traceparent = self._trace.traceparent() if self._trace is not None else b""
        for name, value in fields.items():
            if name not in _NOT_ASKED and not (traceparent and name == b"traceparent"):
                pairs.append((name, value))
        if traceparent:
            pairs.append((b"traceparent", traceparent))
        if self._deadline != float("inf"):
            left = max(1, round((self._deadline - time.monotonic()) * 1e3))
            pairs.append((b"grpc-timeout", b"%dm" % min(left, 99_999_999)))
        return b"".join(literal(name, value) for name, value in pairs)

    def _plausible(self, fields: Fields) -> bool:
        """Whether this is the head of an answer to a gRPC call; ends the call if it is not."""
        known = dict(fields)
        if known.get(b":status") == b"200" and known.get(b"content-type", b"").startswith(b"application/grpc"):
            return True
        told = known.get(b":status", b"no").decode("latin-1")
        if self._lane is not None:
            self._lane.reset()
            self._lane = None
        self._desk.meters.errors["broken"] += 1
        self._complain("", 502, f"the engine's answer is not gRPC: status {told}", good=False)
        return False

    def _refuse(self, reason: str, code: int, text: str, more: bytes = b"") -> None:
        if self._counted:
            rejected = self._desk.metrics.rejected
            rejected[reason] = rejected.get(reason, 0) + 1
        self._call.fail(code, text, more)
        self._settle(code)

    def _complain(self, reason: str, code: int, text: str, *, good: bool | None) -> None:
        if self._over:
            return
        self._tell_circuit(good)
        if self._lane is not None:
            self._lane.reset()
            self._lane = None
        if reason:
            self._refuse(reason, code, text)
        else:
            self._call.fail(code, text)
            self._settle(code)

    def _settle(self, code: int) -> None:
        if self._over:
            return
        metrics = self._desk.metrics
        if self._counted:
            metrics.inflight -= 1
            metrics.answered(code, time.monotonic() - self._call.received)
            if self._entered:
                metrics.observe_queue(self._entered - self._call.received)
        self._stop(code)

    def _stop(self, code: int) -> None:
        if self._over:
            return
        self._over = True
        self._held = []
        desk, now = self._desk, time.monotonic()
        if self._lane is not None:
            self._lane.reset()
            self._lane = None
        self._tell_circuit(None)
        self._call.on_drained = None
        desk.passages.discard(self)
        seconds = now - self._entered if self._entered else 0.0
        if seconds:
            desk.meters.upstream(seconds)
        desk.gate.leave(self, seconds)
        self._record(code, now)

    def _tell_circuit(self, good: bool | None) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            self._desk.breaker.tell(number, good, time.monotonic())

    def _record(self, code: int, now: float) -> None:
        call, trace = self._call, self._trace
        if self._counted and (recorder := self._desk.recorder) is not None:
            recorder.add(
                Passed(
                    code, call.identify(), b"POST", self._path, self._body, call.received, self._entered, self._first,
                    now, self._given, 0, None, self._client,
                    trace.trace_id if trace is not None else trace_id(call.head.fields),
                )
            )  # fmt: skip
        if trace is not None:
            trace.end(code, call.identify(), self._entered, self._entered, now, 0)


def _block(fields: Fields, without: bytes = b"") -> bytes:
    """Fields of the engine's answer, as they go on."""
    return b"".join(
        literal(name, value)
        for name, value in fields
        if name not in _OURS and name[:1] != b":" and name != without and name != b"connection"
    )
