"""The circuit between the queue and an engine that fails again and again: requests are refused at once instead.

Off unless asked for, since a client whose inputs the model cannot take makes it fail as well: with other clients about,
their successes keep the circuit closed; alone, it would lock itself out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serinus_runtime.datatypes import Array
from serinus_runtime.proxy.breaker import Breaker, Circuit
from serinus_runtime.tickets import Run


class CircuitOpenError(Exception):
    """The engine failed too often; ask again in `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the engine fails again and again: it is left alone for a moment")
        self.retry_after = retry_after


class EngineCircuit:
    """`run` with a breaker around it, which opens after `failures` failures in a row. Any thread may call it."""

    def __init__(self, run: Run, failures: int) -> None:
        self._run = run
        self._breaker = Breaker(failures=failures, pause=1.0, longest_pause=30.0)
        self._lock = threading.Lock()

    def retry_after(self, now: float) -> float:
        """Seconds until asking makes sense; 0 when it does now."""
        return self._breaker.retry_after(now) if self._breaker.state is Circuit.OPEN else 0.0

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """What the engine gives. Raises what it raises, or CircuitOpenError."""
        with self._lock:
            now = time.monotonic()
            number = self._breaker.admit(now)
            if number is None:
                raise CircuitOpenError(self._breaker.retry_after(now))
        try:
            answer = self._run(inputs, outputs)
        except BaseException:
            with self._lock:
                self._breaker.failed(number, time.monotonic())
            raise
        with self._lock:
            self._breaker.succeeded(number)
        return answer

    def collect(self, names: Sequence[str], values: Sequence[str]) -> list[Metric]:
        """How it stands, with the labels that all metrics have."""
        is_open = GaugeMetricFamily("serinus_engine_circuit_open", "1 while the engine is left alone", labels=names)
        is_open.add_metric(values, 0 if self._breaker.state is Circuit.CLOSED else 1)
        openings = CounterMetricFamily("serinus_engine_circuit_openings", "How often it was opened", labels=names)
        openings.add_metric(values, self._breaker.openings)
        return [is_open, openings]
