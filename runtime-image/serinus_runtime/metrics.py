"""What the runtime counts, in Prometheus' words.

Everything is counted on the event loop's thread in plain numbers (a tenth of what locked counters cost), and turned
into metric families when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from serinus_runtime.cache import ResponseCache
from serinus_runtime.families import Families

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
STAGES = ("decode", "queue", "infer", "encode")
REJECTIONS = (
    "queue_full", "timeout", "draining", "not_ready", "too_large", "invalid", "unauthenticated", "forbidden",
    "rate_limited", "circuit_open",
)  # fmt: skip
_DURATION_EDGES = (0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
                   0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)  # fmt: skip
_STAGE_EDGES = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                0.25, 0.5, 1.0, 2.5)  # fmt: skip


def _text(edge: float) -> str:
    text: str = floatToGoString(edge)  # type: ignore[no-untyped-call]
    return text


class Histogram:
    """Counts of values by buckets, without locks."""

    __slots__ = ("_counts", "_edges", "_sum")

    def __init__(self, edges: Iterable[float]) -> None:
        self._edges = sorted(set(edges))
        self._counts = [0] * (len(self._edges) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        # What bisect_left does; compiled, this is a quarter of a call of it.
        edges = self._edges
        low, high = 0, len(edges)
        while low < high:
            middle = (low + high) >> 1
            if edges[middle] < value:
                low = middle + 1
            else:
                high = middle
        counts = self._counts
        counts[low] = counts[low] + 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Tells what was counted."""
        edges = [*(_text(edge) for edge in self._edges), "+Inf"]
        family.add_metric(labels, list(zip(edges, accumulate(self._counts), strict=True)), self._sum)


class Metrics(Collector):
    """The counters of one process. Times are in seconds; `slo_latency` becomes an edge of the duration histogram."""

    def __init__(
        self, *, namespace: str, deployment: str, revision: str, model_version: str, slo_latency: float, max_batch: int
    ) -> None:
        self._labels = {
            "model_namespace": namespace,
            "model_deployment": deployment,
            "revision": revision,
            "model_version": model_version,
        }
        self._slo = slo_latency
        self._codes: dict[int, int] = {200: 0}
        self._slow = 0
        self._duration = Histogram((*_DURATION_EDGES, slo_latency))
        self._mirroring = False
        self._aside: tuple[dict[int, int], Histogram, int] = ({}, Histogram((*_DURATION_EDGES, slo_latency)), 0)
        """Counts of the other kind: of copies, or, while there are copies, of users' requests."""
        self._batch = Histogram((*(float(1 << n) for n in range(max_batch.bit_length())), float(max_batch)))
        self._stages = {stage: Histogram(_STAGE_EDGES) for stage in STAGES}
        self.rejected: dict[str, int] = dict.fromkeys(REJECTIONS, 0)
        self.inflight = 0
        self.load_seconds = 0.0
        self.proved: bool | None = None
        """Warm-up has seen the model answer; None: nobody looked."""
        self.queue_limit = 0
        self.queue_depth: Callable[[], int] = lambda: 0
        self.cache: ResponseCache | None = None
        self.predictions: Callable[[], Mapping[str, int]] | None = None
        """Lines of the prediction log by what became of them; None: there is no log."""
        self.collect_engine: Callable[[Sequence[str], Sequence[str]], Iterable[Metric]] | None = None
        """The engine's own metrics."""
        self.collect_more: list[Callable[[Sequence[str], Sequence[str]], Iterable[Metric]]] = []
        """Further metrics of whatever is switched on."""
        self.collect_drift: Callable[[Sequence[str], Sequence[str]], Iterable[Metric]] | None = None
        self._info: dict[str, str] | None = None
        self._infer = self._stages["infer"]
        self._decode = self._stages["decode"]
        self._queue = self._stages["queue"]
        self._encode = self._stages["encode"]
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe_decode(self, seconds: float) -> None:
        """One request was checked and decoded in `seconds`."""
        self._decode.observe(seconds)

    def observe_queue(self, seconds: float) -> None:
        """One request waited for `seconds`."""
        self._queue.observe(seconds)

    def observe_encode(self, seconds: float) -> None:
        """One answer was written in `seconds`."""
        self._encode.observe(seconds)

    def mirroring(self, on: bool) -> None:
        """While `on`, requests are copies that no user waits for: they are counted apart. Costs a request nothing."""
        if on != self._mirroring:
            self._mirroring = on
            now = (self._codes, self._duration, self._slow)
            (self._codes, self._duration, self._slow), self._aside = self._aside, now

    def answered(self, code: int, seconds: float) -> None:
        """One inference request was answered with `code` after `seconds` in the server."""
        self._codes[code] = self._codes.get(code, 0) + 1
        if code < 400 or code >= 500:
            self._duration.observe(seconds)
            if seconds > self._slo:
                self._slow += 1

    def batch(self, rows: int, seconds: float) -> None:
        """One batch of `rows` rows took the engine `seconds`."""
        self._batch.observe(rows)
        self._infer.observe(seconds)

    def loaded(self, *, model: str, digest: str, runtime: str, seconds: float) -> None:
        """The model was verified, loaded and warmed up in `seconds`."""
        self._info = {"model": model, "digest": digest, "runtime": runtime}
        self.load_seconds = seconds

    def unloaded(self) -> None:
        """There is no model any more; what was counted stays."""
        self._info = self.cache = self.predictions = self.collect_engine = self.collect_drift = None
        self.queue_depth = lambda: 0
        self.mirroring(False)

    def renamed(self, model_version: str) -> None:
        """Another version of the model is served from now on; what was counted goes on."""
        self._labels["model_version"] = model_version

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client calls when rendering."""
        names, values = list(self._labels), list(self._labels.values())

        families = Families(names, values)
        counter, gauge = families.counter, families.gauge

        here = (self._codes, self._duration, self._slow)
        (codes_of_users, duration_of_users, slow), (copies, _, _) = (
            (self._aside, here) if self._mirroring else (here, self._aside)
        )
        codes = ((str(code), count) for code, count in codes_of_users.items())
        yield counter("serinus_requests", "Inference requests answered, by HTTP code", "code", codes)
        yield counter("serinus_slow_requests", "Counted requests that took longer than the SLO", "", [("", slow)])
        if copies:
            yield counter(
                "serinus_mirrored_requests", "Copies of requests answered in a shadow, by HTTP code; no user waits",
                "code", ((str(code), count) for code, count in copies.items()),
            )  # fmt: skip
        yield counter(
            "serinus_rejected", "Inference requests refused, by reason", "reason", tuple(self.rejected.items())
        )
        duration = HistogramMetricFamily(
            "serinus_request_duration_seconds", "Time in the server, of 2xx and 5xx answers", labels=names
        )
        duration_of_users.add_to(duration, values)
        yield duration
        sizes = HistogramMetricFamily("serinus_batch_size", "Rows per batch", labels=names)
        self._batch.add_to(sizes, values)
        yield sizes
        stages = HistogramMetricFamily(
            "serinus_stage_duration_seconds", "Time per stage; infer is per batch", labels=[*names, "stage"]
        )
        for stage, histogram in self._stages.items():
            histogram.add_to(stages, [*values, stage])
        yield stages
        yield gauge("serinus_queue_depth", "Rows that wait for the engine", self.queue_depth())
        yield gauge("serinus_queue_limit", "Rows that may wait; beyond it requests are refused", self.queue_limit)
        yield gauge("serinus_inflight_requests", "Inference requests not answered yet", self.inflight)
        yield gauge("serinus_model_load_seconds", "Time to verify, load and warm up the model", self.load_seconds)
        if self.cache is not None:
            counts = (("hit", self.cache.hits), ("miss", self.cache.misses))
            yield counter("serinus_response_cache_requests", "Requests looked up in the cache", "outcome", counts)
            yield gauge("serinus_response_cache_bytes", "Bytes of answers that are kept", self.cache.nbytes)
        if self.predictions is not None:
            yield counter(
                "serinus_prediction_log_lines", "Lines of the prediction log, by what became of them", "outcome",
                tuple(self.predictions().items()),
            )  # fmt: skip
        if self.collect_engine is not None:
            yield from self.collect_engine(names, values)
        for collect in self.collect_more:
            yield from collect(names, values)
        if self.collect_drift is not None:
            yield from self.collect_drift(names, values)
        if self._info is not None:
            if self.proved is not None:
                yield gauge("serinus_model_proved", "1 when warm-up has seen the model answer", int(self.proved))
            info = InfoMetricFamily("serinus_model", "The model that is served", labels=names)
            info.add_metric(values, self._info)
            yield info
