"""What becomes of a request that passes: the circuit, the counters, the log, the span."""

from __future__ import annotations

import time

from serinus_runtime.http import Exchange
from serinus_runtime.http.streaming import Stream
from serinus_runtime.predictionlog import Prediction
from serinus_runtime.proxy import openai
from serinus_runtime.proxy.desk import Desk
from serinus_runtime.proxy.pool import Turn
from serinus_runtime.proxy.record import Passed
from serinus_runtime.tracing import Trace, trace_id

GONE = 499
"""nginx's code for a client that left; it is logged, and counted nowhere."""


class Account(Turn):
    """One request's. `counted`: it is an inference request."""

    def __init__(self, desk: Desk, exchange: Exchange, path: bytes, *, counted: bool) -> None:
        self._desk = desk
        self._exchange = exchange
        self._path = path
        self._counted = counted
        self._metered = counted and path in openai.PATHS
        self._body = exchange.body
        self._client = ""
        """The name of its key, where keys are asked for."""
        self._trace: Trace | None = None
        self._number = -1
        """Of the circuit; -1: its outcome is told already."""
        self._queued = 0.0
        """When it was checked and began to wait."""
        self._sent = 0.0
        self._first = 0.0
        """When the first piece of the body came."""
        self._status = 0
        self._stream: Stream | None = None
        self._sse = False
        self._events = 0
        self._tail = b""
        self._given = 0
        self._tokens: tuple[int, int] | None = None
        self._over = False

    def _count_tokens(self, now: float) -> None:
        if self._metered and self._status < 400:
            used = openai.usage(self._tail)
            if used is not None:
                self._tokens = (used.prompt, used.completion)
                self._desk.meters.used(used)
            if self._sse and self._first:
                tokens = used.completion if used is not None and used.completion else self._events
                self._desk.meters.paced(now - self._first, tokens - 1)

    def _settle(self, status: int, seconds: float) -> None:
        if self._over:
            return
        self._over = True
        if self._counted:
            self._desk.metrics.inflight -= 1
            self._desk.metrics.answered(status, seconds)
            if self._sent:
                self._desk.metrics.observe_queue(self._sent - self._exchange.received)
        self._record(status)

    def _leave(self) -> None:
        """The client is gone."""
        self._over = True
        self._tell_circuit(None)
        if self._stream is not None:
            self._stream = None
            self._desk.meters.streams -= 1
        self._desk.pool.leave(self)
        if self._counted:
            self._desk.metrics.inflight -= 1

    def _tell_circuit(self, good: bool | None) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            self._desk.breaker.tell(number, good, time.monotonic())

    def _record(self, status: int) -> None:
        recorder = self._desk.recorder
        exchange = self._exchange
        if self._counted and (tap := self._desk.state.tap) is not None:
            times = (exchange.received, self._sent, self._sent, self._first, time.monotonic())
            tap(Prediction(status, exchange.known_id(), *times, 0, None, (), []))
        if recorder is not None and self._counted:
            recorder.add(
                Passed(
                    status,
                    exchange.known_id(),
                    exchange.method,
                    self._path,
                    self._body,
                    exchange.received,
                    self._sent,
                    self._first,
                    time.monotonic(),
                    self._given,
                    self._events,
                    self._tokens,
                    self._client,
                    self._trace.trace_id if self._trace is not None else trace_id(exchange.headers),
                )
            )
        if self._trace is not None:
            self._trace.end(status, self._exchange.known_id(), self._queued, self._sent, time.monotonic(), 0)
