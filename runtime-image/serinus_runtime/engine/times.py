"""How long the steps of an engine take, as a metric."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client.core import Metric, SummaryMetricFamily


class StepTimes:
    """Runs and seconds by the name of a step; may be used from any thread."""

    def __init__(self, steps: Iterable[str]) -> None:
        self._found = dict.fromkeys(steps, (0, 0.0))
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Adds the time that the block takes, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                count, total = self._found[step]
                self._found[step] = (count + 1, total + seconds)

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Metric:
        """The family `serinus_step_duration_seconds`."""
        family = SummaryMetricFamily(
            "serinus_step_duration_seconds", "Time of each step of the model, per batch", labels=[*names, "step"]
        )
        for step, (count, seconds) in self._found.items():
            family.add_metric([*values, step], count, seconds)
        return family
