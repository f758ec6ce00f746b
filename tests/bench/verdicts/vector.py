"""The product's sequential tests over many runs at once, in numpy. A unit test holds them to the product's own code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from serinus.evidence.sequential import (
    AGAIN,
    ALTERNATIVES,
    HELD_BACK,
    LARGEST,
    MOST,
    Z99,
    alternatives,
    places,
    together,
)
from serinus.evidence.verdict import FADE, LAXEST
from serinus.evidence.versus import MOST_SHARE, PRIOR, ROOM

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Blocks = Sequence[tuple[Ints, Ints]]
"""Bad requests and requests of each pod, by run."""


class Tests:
    """Capital of `runs` tests by alternative, as numbers instead of logarithms."""

    __test__ = False

    def __init__(self, runs: int) -> None:
        self.capital: Floats = np.zeros((runs, ALTERNATIVES))
        self.held_back = 1.0
        self._was_bad: dict[int, NDArray[np.bool_]] = {}

    def invest(self, progress: float) -> None:
        """Brings the share that is held back to what the progress of the step allows."""
        held_back = min(self.held_back, HELD_BACK * (1 - min(1.0, progress)))
        self.capital += (self.held_back - held_back) / ALTERNATIVES
        self.held_back = held_back

    def bet(self, pod: int, bad: Ints, requests: Ints, p0: float | Floats) -> None:
        """One block of one pod of each run. A block without requests changes nothing."""
        most = self._most(pod, bad, requests)
        if isinstance(p0, float):
            spared = _spared(p0, int(requests.max(initial=0)))[requests]
            gain = np.divide(bad, requests, out=np.full(len(bad), p0), where=requests > 0) / p0
        else:
            loss = (np.log1p(-_rates(p0)) - np.log1p(-p0)[:, None]) / np.array(together())
            spared = np.exp(requests[:, None] * loss)
            gain = np.divide(bad, requests, out=p0.copy(), where=requests > 0) / p0
        self.capital *= np.minimum(most, spared + (1 - spared) * gain[:, None])

    def bet_versus(self, candidate: Blocks, live: Blocks, share: Floats, margin: float) -> None:
        """One look at both revisions, around the guessed live shares."""
        p0 = share + margin
        loss = (np.log1p(-_rates(p0)) - np.log1p(-p0)[:, None]) / np.array(together())
        stakes = [-np.expm1(requests[:, None] * loss) / p0[:, None] for _, requests in candidate]
        wanted, total = np.sum(stakes, axis=0), np.sum([requests for _, requests in live], axis=0)
        largest = np.max([requests for _, requests in live], axis=0)
        room = np.divide(total, largest, out=np.zeros(len(total)), where=largest > 0) / (1 - share)
        whole = np.minimum(wanted, room[:, None] * np.array(ROOM))
        scale = np.divide(whole, wanted, out=np.zeros_like(whole), where=wanted > 0)
        for pod, (stake, (bad, requests)) in enumerate(zip(stakes, candidate, strict=True)):
            excess = np.divide(bad, requests, out=p0.copy(), where=requests > 0) - p0
            self.capital *= np.minimum(self._most(pod, bad, requests), 1 + scale * stake * excess[:, None])
        for bad, requests in live:
            excess = (bad - requests * share) / np.maximum(1, total)
            self.capital *= np.maximum(0.0, 1 - whole * excess[:, None])

    def _most(self, pod: int, bad: Ints, requests: Ints) -> Floats:
        """Largest factor of a pod's block; notes whether this one is bad."""
        was_bad = self._was_bad.get(pod, np.zeros(len(bad), bool))
        self._was_bad[pod] = np.where(requests > 0, bad > 0, was_bad)
        return np.where(was_bad, AGAIN, MOST)[:, None]

    def evidence(self) -> Floats:
        """The whole capital of each run."""
        return np.asarray(self.capital.sum(axis=1) + self.held_back)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.capital = self.capital[rows]
        self._was_bad = {pod: bad[rows] for pod, bad in self._was_bad.items()}


@lru_cache(maxsize=64)
def _table(p0: float, most: int) -> Floats:
    loss = (np.log1p(-np.array(alternatives(p0))) - math.log1p(-p0)) / np.array(together())
    return np.asarray(np.exp(np.arange(most + 1)[:, None] * loss))


def _spared(p0: float, most: int) -> Floats:
    return _table(p0, 1 << max(6, most.bit_length()))


def _rates(p0: Floats) -> Floats:
    base = np.log(p0) - np.log1p(-p0)
    farthest = math.log(LARGEST) - math.log1p(-LARGEST) - base
    nearest = np.minimum(math.log(1.5), farthest / 2)
    excess = nearest[:, None] * (farthest / nearest)[:, None] ** np.array(places())
    return np.asarray(1 / (1 + np.exp(-(base[:, None] + excess))))


def upper(bad: Floats, requests: Floats, z: float | Floats = Z99) -> Floats:
    """Upper end of the Wilson interval; 1 where there are no requests."""
    n = np.maximum(requests, 1e-12)
    rate = bad / n
    spread = z * np.sqrt(np.maximum(0.0, rate * (1 - rate) / n + z**2 / (4 * n * n)))
    bound = (rate + z**2 / (2 * n) + spread) / (1 + z**2 / n)
    return np.asarray(np.where(requests > 0, np.minimum(1.0, bound), 1.0))


@dataclass
class Live:
    """What the live revision did: since the step began, lately, and in the last look."""

    bad: Floats
    requests: Floats
    recent_bad: Floats
    recent: Floats
    fresh_bad: Floats
    fresh: Floats

    @classmethod
    def of(cls, runs: int) -> Live:
        return cls(*(np.zeros(runs) for _ in range(6)))

    def add(self, by_pod: Blocks) -> None:
        """One look: bad requests and requests of each pod."""
        bad, requests = (np.sum([each[i] for each in by_pod], axis=0) for i in (0, 1))
        some = requests > 0
        self.fresh_bad, self.fresh = bad.astype(np.float64), requests.astype(np.float64)
        self.bad += bad
        self.requests += requests
        self.recent_bad = np.where(some, np.round(FADE * self.recent_bad + bad, 3), self.recent_bad)
        self.recent = np.where(some, np.round(FADE * self.recent + requests, 3), self.recent)

    def next_step(self, runs: int) -> Live:
        """Counts begin anew, what happened lately stays known. Runs that ended are filled up with others' past."""
        some = np.resize(np.arange(len(self.recent)), runs) if len(self.recent) else np.zeros(0, np.int64)
        fresh = Live.of(runs)
        if len(some):
            fresh.recent_bad, fresh.recent = self.recent_bad[some], self.recent[some]
        return fresh

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.bad, self.requests = self.bad[rows], self.requests[rows]
        self.recent_bad, self.recent = self.recent_bad[rows], self.recent[rows]
        self.fresh_bad, self.fresh = self.fresh_bad[rows], self.fresh[rows]

    def guess(self, margin: float) -> Floats:
        """The share before the last look, that bets are made around."""
        bad, requests = (np.maximum(0.0, x) for x in (self.recent_bad - self.fresh_bad, self.recent - self.fresh))
        share = (PRIOR * margin + bad) / (PRIOR + requests)
        return np.asarray(np.clip(share, 0.0, MOST_SHARE - margin))

    def allowed(self, limit: float) -> Floats:
        """The share that the SLO holds each candidate to."""
        least = np.where(self.recent > 0, 1 - upper(self.recent - self.recent_bad, self.recent), 0.0)
        rate = np.divide(self.bad, self.requests, out=np.zeros_like(self.bad), where=self.requests > 0)
        bound = np.where(rate > limit, np.maximum(limit, upper(self.bad, self.requests)), limit)
        bound = np.where(least > limit, np.maximum(bound, upper(self.recent_bad, self.recent)), bound)
        least = np.where(self.fresh > 0, 1 - upper(self.fresh - self.fresh_bad, self.fresh), 0.0)
        bound = np.where(least > bound, np.maximum(bound, upper(self.fresh_bad, self.fresh)), bound)
        return np.asarray(np.round(np.clip(bound, 1e-6, LAXEST), 9))
