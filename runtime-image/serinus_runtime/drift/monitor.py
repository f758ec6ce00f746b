"""Watches batches on their way: keeps some of them, counts them on a thread of its own, and tells Prometheus.

The path of a request pays for one append per batch. The thread looks once a second, at `ROWS` rows at most: what comes
faster is sampled, so that the cost is bounded whatever the load. Answers from the cache never reach the engine and are
not seen.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from serinus_runtime import logs
from serinus_runtime.about import About
from serinus_runtime.datatypes import Array
from serinus_runtime.drift.columns import SCORE, flatten, input_places, output_places
from serinus_runtime.drift.reference import Reference
from serinus_runtime.drift.window import MINIMUM, Faded
from serinus_runtime.engine import Signature

ROWS = 4096
"""Rows that are counted in a second."""
_BYTES = 16 << 20
_SECONDS = 1.0
Run = Callable[[Mapping[str, Array], Sequence[str]], list[Array]]


class DriftMonitor:
    """Distributions of what a model is asked and answers, against `reference`; without one, only the score's histogram.

    `window` is the half-life of the counts in seconds, `share` how many of the batches are looked at. `now` is a clock
    that only goes forward. Without `thread`, `fold` must be called from time to time.
    """

    def __init__(
        self,
        signature: Signature,
        about: About,
        reference: Reference | None,
        *,
        window: float = 3600.0,
        share: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        thread: bool = True,
    ) -> None:
        known = reference or Reference(0)
        self._inputs = [place for place in input_places(signature, about) if place.name in known.inputs]
        outputs = output_places(signature, about)
        self._outputs = [place for place in outputs if place.name in known.outputs or place.name == SCORE]
        missing = {*known.inputs} - {place.name for place in self._inputs}
        missing |= {*known.outputs} - {place.name for place in outputs}
        if missing:
            logs.event(
                "warning", "the reference knows columns that the model does not have", columns=sorted(missing)[:20]
            )
        self._windows = {
            kind: {place.name: Faded(columns[place.name], window) for place in places if place.name in columns}
            for kind, places, columns in (
                ("input", self._inputs, known.inputs),
                ("output", self._outputs, known.outputs),
            )
        }
        self._score: tuple[list[float], list[float]] | None = None
        if any(place.name == SCORE for place in outputs):
            edges = _score_edges(about)
            self._score = (edges, [0.0] * (len(edges) + 2))
        self._score_sum = 0.0
        self._share = share
        self._now = now
        self._random = random.Random()  # noqa: S311 - which batches are looked at is no secret
        self._waiting: deque[tuple[Mapping[str, Array], Sequence[str], list[Array], int]] = deque()
        self._rows = 0
        self._bytes = 0
        self.seen = 0
        """Rows that were counted."""
        self.passed = 0
        """Rows that were let pass uncounted: not in the sample, or more than can be counted in a second."""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="serinus-drift", daemon=True) if thread else None
        if self._thread is not None:
            self._thread.start()

    def watching(self, run: Run) -> Run:
        """`run`, with what goes in and comes out looked at."""

        def watched(inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
            answers = run(inputs, outputs)
            self.offer(inputs, outputs, answers)
            return answers

        return watched

    def offer(self, inputs: Mapping[str, Array], names: Sequence[str], outputs: list[Array]) -> None:
        """Keeps a batch for the thread, or lets it pass. From any thread; never blocks, never raises."""
        rows = len(next(iter(inputs.values()), ()))
        if self._rows >= ROWS or self._bytes >= _BYTES or (self._share < 1 and self._random.random() >= self._share):
            self.passed += rows
            return
        self._rows += rows
        for array in inputs.values():
            self._bytes += array.nbytes
        self._waiting.append((inputs, names, outputs, rows))

    def fold(self) -> None:
        """Counts what was kept."""
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._rows = self._bytes = 0
        if not taken:
            return
        now = self._now()
        found = {
            "input": flatten((inputs for inputs, _, _, _ in taken), self._inputs),
            "output": flatten(
                (dict(zip(names, outputs, strict=True)) for _, names, outputs, _ in taken), self._outputs
            ),
        }
        for kind, columns in found.items():
            for name, values in columns.items():
                if (window := self._windows[kind].get(name)) is not None:
                    with self._lock:
                        window.add(values, now)
        with self._lock:
            self.seen += sum(rows for _, _, _, rows in taken)
            if self._score is not None and (scores := found["output"].get(SCORE)) is not None:
                self._count_scores(np.asarray(scores, dtype=np.float64))

    def close(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Metric families; `names` and `values` are the labels that every sample carries."""
        psi = GaugeMetricFamily(
            "serinus_drift_psi",
            "Population stability index against the model's reference: above 0.1 moved, above 0.25 far away",
            labels=[*names, "feature", "kind"],
        )
        ks = GaugeMetricFamily(
            "serinus_drift_ks",
            "Largest difference of the distribution functions of an output, now and in the reference",
            labels=[*names, "feature"],
        )
        rows = GaugeMetricFamily(
            "serinus_drift_window_rows", "Rows in the fading window; drift is told from 500 on", labels=names
        )
        counted = CounterMetricFamily(
            "serinus_drift_rows", "Rows by whether drift looked at them", labels=[*names, "outcome"]
        )
        now, most = self._now(), 0.0
        with self._lock:
            for kind, windows in self._windows.items():
                for name, window in windows.items():
                    told = window.tell(now)
                    most = max(most, told.rows)
                    if told.rows < MINIMUM:
                        continue
                    psi.add_metric([*values, name, kind], told.psi)
                    if kind == "output" and told.ks is not None:
                        ks.add_metric([*values, name], told.ks)
            rows.add_metric(values, most)
            counted.add_metric([*values, "counted"], self.seen)
            counted.add_metric([*values, "passed"], self.passed)
            families: list[Metric] = [counted]
            if any(self._windows.values()):
                families += [psi, ks, rows]
            if self._score is not None:
                families.append(self._histogram(names, values))
        return families

    def _count_scores(self, scores: Array) -> None:
        assert self._score is not None
        edges, counts = self._score
        finite = scores[~np.isnan(scores)]
        for at, count in enumerate(np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)):
            counts[at] += int(count)
        self._score_sum += float(finite[np.isfinite(finite)].sum())

    def _histogram(self, names: Sequence[str], values: Sequence[str]) -> Metric:
        assert self._score is not None
        edges, counts = self._score
        texts = [*(floatToGoString(edge) for edge in edges), "+Inf"]  # type: ignore[no-untyped-call]
        family = HistogramMetricFamily("serinus_score", "Scores of the rows that drift looked at", labels=names)
        family.add_metric(values, list(zip(texts, accumulate(counts[: len(texts)]), strict=True)), self._score_sum)
        return family

    def _work(self) -> None:
        while not self._stopped.wait(_SECONDS):
            try:
                self.fold()
            except Exception as error:
                logs.event("error", "drift could not be counted", error=repr(error)[:300])
                self._stopped.wait(60.0)


def _score_edges(about: About) -> list[float]:
    """Twentieths, and the thresholds of the model's rule, which a dashboard wants to see exactly."""
    edges = {round(at / 20, 2) for at in range(21)}
    if about.rule is not None:
        edges |= {threshold for _, threshold in about.rule.steps}
    return sorted(edges)
