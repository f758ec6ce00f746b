"""What the pairs of a shadow say, in bounded memory: outcomes, distances, distributions, the worst disagreements."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from serinus_runtime.shadow import twosample
from serinus_runtime.shadow.agreement import Compared, Outcome, compare
from serinus_runtime.shadow.chosen import BottomK
from serinus_runtime.shadow.records import Record, Sample, place

EDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0)
"""Upper edges of the histogram of distances."""
WORST = 20
_SCORES = 4096
"""Pairs whose scores and times are kept."""
_INPUTS = 2048
"""Pairs whose inputs are kept."""
_TURNS = 50
"""Different changes of a label that are counted by name."""
_SHOWN = 16
"""Values of a tensor that are shown of a bad pair."""


class Feature(msgspec.Struct, frozen=True):
    """How far apart the two revisions are in one column."""

    name: str
    psi: float
    ks: float | None = None


class Figures(msgspec.Struct, frozen=True):
    """Distances between the two revisions; None below 100 values. Candidate against live, over the same requests."""

    psi: float | None = None
    """Of the scores."""
    ks: float | None = None
    inputs: list[Feature] = []
    """What each of them read, by the column's name: the farthest first."""
    latency_ratio: float | None = None
    """Candidate's 95th percentile of the time in the server by the live revision's."""
    live_p95_ms: float | None = None
    candidate_p95_ms: float | None = None


class Bad(msgspec.Struct, frozen=True):
    """One pair that disagrees."""

    id: str
    outcome: str
    distance: float | None
    flips: dict[str, tuple[Any, Any]]
    live: dict[str, Any]
    candidate: dict[str, Any]
    live_ms: float
    candidate_ms: float
    live_code: int
    candidate_code: int
    hash: str


class Kept(msgspec.Struct, frozen=True):
    """The sample of one request, as both revisions saw it."""

    id: str
    live: Sample | None
    candidate: Sample | None


class Tally:
    """Of one shadow. `samples` requests are kept as samples."""

    def __init__(self, tolerance: float | None = None, samples: int = 0) -> None:
        self._tolerance = tolerance
        self.outcomes: Counter[Outcome] = Counter()
        self.flips: Counter[str] = Counter()
        self.turns: Counter[str] = Counter()
        """By output, from and to: how often a label changed so."""
        self.distances = [0] * (len(EDGES) + 1)
        self.distance_sum = 0.0
        self.altered = 0
        """Of the pairs whose inputs were asked for, those that differ: what was mirrored is not what was read."""
        self._worst: list[tuple[float, str, Bad]] = []
        self._scores: BottomK[tuple[list[float], list[float], float, float]] = BottomK(_SCORES)
        self._inputs: BottomK[tuple[list[list[Any]], list[list[Any]]]] = BottomK(_INPUTS)
        self._samples: BottomK[Kept] = BottomK(samples)
        self._columns: dict[str, tuple[str, ...]] = {}

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.outcomes.total()

    @property
    def inputs_below(self) -> int:
        """Inputs of requests with a `place` below this are still wanted."""
        return self._inputs.below

    @property
    def samples_below(self) -> int:
        """The same for samples."""
        return self._samples.below

    def columns(self, side: str, names: Sequence[str]) -> None:
        """What the columns of one side's inputs are called."""
        self._columns[side] = tuple(names)

    def add(self, live: Record, candidate: Record) -> Outcome:
        """Takes a pair."""
        found = compare(live, candidate, self._tolerance)
        self.outcomes[found.outcome] += 1
        if live.hash and candidate.hash and live.hash != candidate.hash:
            self.altered += 1
        if found.distance is not None:
            self.distances[bisect_left(EDGES, found.distance)] += 1
            self.distance_sum += min(found.distance, 1e9)
        for name, (before, after) in found.flips.items():
            self.flips[name] += 1
            turn = f"{name}: {str(before)[:40]} -> {str(after)[:40]}"
            if turn in self.turns or len(self.turns) < _TURNS:
                self.turns[turn] += 1
        self._remember_bad(live, candidate, found)
        if live.code < 400 and candidate.code < 400:
            at = place(live.id)
            self._scores.add(at, live.id, (live.scores, candidate.scores, live.ms, candidate.ms))
            if live.inputs and candidate.inputs:
                self._inputs.add(at, live.id, (live.inputs, candidate.inputs))
            if live.sample is not None or candidate.sample is not None:
                self._samples.add(at, live.id, Kept(live.id, live.sample, candidate.sample))
        return found.outcome

    @property
    def worst(self) -> list[Bad]:
        """The worst disagreements, the worst first: failures, then flipped labels, then by distance."""
        return [bad for _, _, bad in sorted(self._worst, key=lambda entry: (-entry[0], entry[1]))]

    @property
    def samples(self) -> list[Kept]:
        """Requests as both revisions saw them."""
        return list(self._samples)

    def figures(self) -> Figures:
        """Takes some milliseconds."""
        live_scores, candidate_scores, live_ms, candidate_ms = [], [], [], []
        for mine, theirs, my_ms, their_ms in self._scores:
            live_ms.append(my_ms)
            candidate_ms.append(their_ms)
            if len(mine) == len(theirs):
                live_scores += mine
                candidate_scores += theirs
        psi = ks = ratio = live_p95 = candidate_p95 = None
        if len(live_scores) >= twosample.MINIMUM:
            now, then = np.array(candidate_scores, dtype=np.float64), np.array(live_scores, dtype=np.float64)
            psi, ks = twosample.psi_numbers(now, then), twosample.ks(now, then)
        if len(live_ms) >= twosample.MINIMUM:
            live_p95, candidate_p95 = (float(np.quantile(each, 0.95)) for each in (live_ms, candidate_ms))
            ratio = candidate_p95 / max(live_p95, 1e-3)
        return Figures(psi, ks, self._features(), ratio, live_p95, candidate_p95)

    def _features(self) -> list[Feature]:
        mine, theirs = self._columns.get("live", ()), self._columns.get("candidate", ())
        live_rows = [row for rows, _ in self._inputs for row in rows]
        candidate_rows = [row for _, rows in self._inputs for row in rows]
        found = []
        for at, name in enumerate(mine):
            if name not in theirs:
                continue
            there = theirs.index(name)
            before = [row[at] for row in live_rows if at < len(row) and row[at] is not None]
            after = [row[there] for row in candidate_rows if there < len(row) and row[there] is not None]
            if min(len(before), len(after)) < twosample.MINIMUM:
                continue
            if isinstance(before[0], str) or isinstance(after[0], str):
                found.append(Feature(name, twosample.psi_values(after, before)))
                continue
            now, then = np.array(after, dtype=np.float64), np.array(before, dtype=np.float64)
            found.append(Feature(name, twosample.psi_numbers(now, then), twosample.ks(now, then)))
        return sorted(found, key=lambda feature: (-max(feature.psi, feature.ks or 0.0), feature.name))

    def _remember_bad(self, live: Record, candidate: Record, found: Compared) -> None:
        if found.outcome in (Outcome.AGREED, Outcome.INCOMPARABLE, Outcome.LIVE_FAILED, Outcome.BOTH_FAILED):
            return
        distance = found.distance or 0.0
        # Failures before flips before numbers; 1 - 1 / (1 + d) keeps the order of distances, infinity too.
        grade = 2.0 * (found.outcome is Outcome.CANDIDATE_FAILED) + bool(found.flips)
        badness = grade + (1.0 if math.isinf(distance) else 1.0 - 1.0 / (1.0 + distance)) * 0.999
        entry_key = (badness, live.id)
        if len(self._worst) >= WORST and entry_key <= self._worst[0][:2]:
            return
        bad = Bad(
            live.id, found.outcome.value, found.distance, found.flips, _shown(live), _shown(candidate), live.ms,
            candidate.ms, live.code, candidate.code, live.hash,
        )  # fmt: skip
        if len(self._worst) < WORST:
            heapq.heappush(self._worst, (*entry_key, bad))
        else:
            heapq.heapreplace(self._worst, (*entry_key, bad))


def _shown(record: Record) -> dict[str, Any]:
    return {name: values[:_SHOWN] for name, values in {**record.labels, **record.numbers}.items()}
