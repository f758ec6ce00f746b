"""What is counted of an engine beside us, beyond what is counted of every model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric

from serinus_runtime.families import Families
from serinus_runtime.metrics import Histogram
from serinus_runtime.proxy.breaker import Breaker, Circuit
from serinus_runtime.proxy.openai import Usage
from serinus_runtime.proxy.pool import Pool

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
ERRORS = ("unreachable", "timeout", "broken")
_CIRCUIT = {Circuit.CLOSED: 0.0, Circuit.HALF_OPEN: 0.5, Circuit.OPEN: 1.0}


class Meters:
    """The counters; all on the event loop's thread. Times in seconds."""

    def __init__(self, pool: Pool, breaker: Breaker) -> None:
        self._pool = pool
        self._breaker = breaker
        self._upstream = Histogram(_SECONDS)
        self._first = Histogram(_SECONDS)
        self._per_token = Histogram(_TOKEN_SECONDS)
        self._tokens = {"prompt": 0, "completion": 0}
        self.errors = dict.fromkeys(ERRORS, 0)
        self.retries = 0
        self.streams = 0
        """Streams under way, and tunnels."""
        self.streamed = {"whole": 0, "broken": 0, "gone": 0}
        self.events = 0
        """Server-sent events, or pieces of other streams."""
        self.upstream = self._upstream.observe
        self.first_byte = self._first.observe

    def used(self, usage: Usage) -> None:
        """An answer told what it took."""
        self._tokens["prompt"] += usage.prompt
        self._tokens["completion"] += usage.completion

    def paced(self, seconds: float, tokens: int) -> None:
        """`tokens` tokens came in `seconds` after the first one."""
        if tokens > 0:
            self._per_token.observe(seconds / tokens)

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Everything, with the labels that all metrics have."""

        families = Families(names, values)
        counter, gauge = families.counter, families.gauge

        def histogram(name: str, text: str, counted: Histogram) -> Metric:
            family = HistogramMetricFamily(name, text, labels=names)
            counted.add_to(family, values)
            return family

        pool, breaker = self._pool, self._breaker
        yield histogram(
            "serinus_upstream_duration_seconds", "Time with the engine, to the end of its answer", self._upstream
        )
        yield histogram(
            "serinus_time_to_first_token_seconds", "From the request to the first piece of a stream", self._first
        )
        yield histogram(
            "serinus_time_per_output_token_seconds", "Pace of streams after the first token", self._per_token
        )
        yield counter("serinus_tokens", "Tokens, by the engine's count", "kind", self._tokens.items())
        yield counter("serinus_streams", "Streams that ended", "outcome", self.streamed.items())
        yield counter("serinus_stream_events", "Events or pieces of streams", "", [("", self.events)])
        yield counter("serinus_upstream_errors", "Requests that the engine did not answer", "kind", self.errors.items())
        yield counter("serinus_upstream_retries", "Requests sent again on a new connection", "", [("", self.retries)])
        yield counter("serinus_upstream_connects", "Connections made to the engine", "", [("", pool.connected)])
        yield counter("serinus_circuit_openings", "How often the circuit opened", "", [("", breaker.openings)])
        yield gauge("serinus_upstream_connections", "Open connections to the engine", pool.connections)
        yield gauge("serinus_upstream_requests", "Requests that are with the engine", pool.running)
        yield gauge("serinus_streams_active", "Streams and tunnels under way", self.streams)
        yield gauge("serinus_circuit_state", "0 closed, 0.5 half-open, 1 open", _CIRCUIT[breaker.state])
