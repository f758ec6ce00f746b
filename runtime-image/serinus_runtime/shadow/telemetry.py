"""The joiner's counters for Prometheus, and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from serinus_runtime.families import Families
from serinus_runtime.shadow.agreement import Outcome
from serinus_runtime.shadow.pairing import Pairing
from serinus_runtime.shadow.tally import EDGES, Bad, Feature, Figures, Kept, Tally

_FRESH_SECONDS = 5.0
"""For how long figures are told again before they are computed anew."""
_FEATURES = 20
"""Inputs whose distances become series: the farthest."""
SCORE = "score"


class Report(msgspec.Struct, rename="camel"):
    """All that the joiner knows, as `/report` answers it."""

    live: str
    candidate: str
    seconds: float
    """For how long it has been joining."""
    pods: Mapping[str, int]
    """Pods that are being read, by side."""
    pairs: int
    outcomes: Mapping[str, int]
    unpaired: Mapping[str, int]
    waiting: int
    altered: int
    psi: float | None
    ks: float | None
    latency_ratio: float | None
    live_p95_ms: float | None
    candidate_p95_ms: float | None
    inputs: list[Feature]
    flips: Mapping[str, int]
    turns: Mapping[str, int]
    distances: Mapping[str, int]
    worst: list[Bad]
    samples: list[Kept]


class Telemetry(Collector):
    """Of one joiner. `pods` counts those that are being read, by side."""

    def __init__(
        self,
        labels: Mapping[str, str],
        live: str,
        tally: Tally,
        pairing: Pairing,
        pods: Callable[[], Mapping[str, int]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._labels = dict(labels)
        self._live = live
        self._tally = tally
        self._pairing = pairing
        self._pods = pods
        self._now = now
        self._since = now()
        self._figures = Figures()
        self._figured = -1e9
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def figures(self) -> Figures:
        """The distances, at most a few seconds old."""
        if self._now() - self._figured >= _FRESH_SECONDS:
            self._figures, self._figured = self._tally.figures(), self._now()
        return self._figures

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def report(self) -> bytes:
        """Everything as JSON."""
        tally, pairing, figures = self._tally, self._pairing, self.figures()
        edges = [f"<= {edge:g}" for edge in EDGES] + [f"> {EDGES[-1]:g}"]
        return msgspec.json.encode(
            Report(
                live=self._live,
                candidate=self._labels["revision"],
                seconds=round(self._now() - self._since, 1),
                pods=self._pods(),
                pairs=tally.pairs,
                outcomes={outcome.value: tally.outcomes[outcome] for outcome in Outcome},
                unpaired=pairing.unpaired,
                waiting=len(pairing),
                altered=tally.altered,
                psi=figures.psi,
                ks=figures.ks,
                latency_ratio=figures.latency_ratio,
                live_p95_ms=figures.live_p95_ms,
                candidate_p95_ms=figures.candidate_p95_ms,
                inputs=figures.inputs,
                flips=tally.flips,
                turns=dict(tally.turns.most_common()),
                distances=dict(zip(edges, tally.distances, strict=True)),
                worst=tally.worst,
                samples=tally.samples,
            )
        )

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client calls when rendering."""
        names, values = list(self._labels), list(self._labels.values())
        families = Families(names, values)
        tally, pairing, figures = self._tally, self._pairing, self.figures()
        outcomes = [(outcome.value, tally.outcomes[outcome]) for outcome in Outcome]
        yield families.counter("serinus_shadow_pairs", "Pairs of answers, by what became of them", "outcome", outcomes)
        yield families.counter(
            "serinus_shadow_unpaired", "Predictions without a partner, by reason", "reason", pairing.unpaired.items()
        )
        yield families.counter("serinus_shadow_altered", "Pairs whose decoded inputs differ", "", [("", tally.altered)])
        yield families.gauge("serinus_shadow_waiting", "Predictions that wait for a partner", len(pairing))
        distance = HistogramMetricFamily(
            "serinus_shadow_distance", "Largest absolute difference of two answers' numbers", labels=names
        )
        texts = [*(floatToGoString(edge) for edge in EDGES), "+Inf"]  # type: ignore[no-untyped-call]
        distance.add_metric(values, list(zip(texts, accumulate(tally.distances), strict=True)), tally.distance_sum)
        yield distance
        by_feature, text = [*names, "kind", "feature"], "candidate against live"
        psi = GaugeMetricFamily("serinus_shadow_psi", f"Population stability index, {text}", labels=by_feature)
        ks = GaugeMetricFamily("serinus_shadow_ks", f"Kolmogorov-Smirnov distance, {text}", labels=by_feature)
        if figures.psi is not None:
            psi.add_metric([*values, "score", SCORE], figures.psi)
        if figures.ks is not None:
            ks.add_metric([*values, "score", SCORE], figures.ks)
        for feature in figures.inputs[:_FEATURES]:
            psi.add_metric([*values, "input", feature.name], feature.psi)
            if feature.ks is not None:
                ks.add_metric([*values, "input", feature.name], feature.ks)
        yield psi
        yield ks
        if figures.latency_ratio is not None:
            yield families.gauge(
                "serinus_shadow_latency_ratio", "Candidate's p95 by the live revision's", figures.latency_ratio
            )
        pods = GaugeMetricFamily("serinus_shadow_pods", "Pods that are being read", labels=[*names, "side"])
        for side, count in self._pods().items():
            pods.add_metric([*values, side], count)
        yield pods
