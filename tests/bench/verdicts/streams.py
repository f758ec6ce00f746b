"""Invented traffic: requests and bad ones, by tick and pod, independent or in clumps.

Kinds of clumps, all with the same share of bad requests:
- none: each request is bad on its own;
- batch: up to 32 requests of a pod fail together;
- burst: a pod is slow for one whole second, at any moment, also across two ticks;
- pod: all requests of a pod between two looks fail together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
TICK = 2.0
BATCH = 32
PER_POD = 100.0
"""Requests per second that one pod serves."""
Clumps = Literal["none", "batch", "burst", "pod"]


def pods_for(rate: float) -> int:
    """Pods of a revision: two at least, as `spec.scaling.min` says."""
    return max(2, math.ceil(rate / PER_POD))


@dataclass
class Pods:
    """The pods of one revision over many runs."""

    rate: float
    """Requests per second of the revision."""
    pods: int
    clumps: Clumps
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.carried: dict[int, NDArray[np.float64]] = {}

    def tick(self, pod: int, runs: NDArray[np.int64], share: float, swing: float = 1.0) -> tuple[Ints, Ints]:
        """Bad requests and requests of one pod in one tick, for each of `runs`.

        Args:
            share: share of bad requests.
            swing: factor on the traffic.
        """
        rng, size = self.rng, len(runs)
        requests = rng.poisson(self.rate * swing * TICK / self.pods, size)
        if self.clumps == "none" or share <= 0:
            return rng.binomial(requests, min(1.0, share)), requests
        if self.clumps == "pod":
            return np.where(rng.random(size) < share, requests, 0), requests
        if self.clumps == "batch":
            together = np.maximum(1, np.minimum(BATCH, requests))
            return np.minimum(requests, together * rng.poisson(requests * share / together)), requests
        carried = self.carried.setdefault(pod, np.zeros(int(runs.max(initial=-1)) + 1))
        starts = rng.random(size) < share * TICK
        inside = np.where(starts, np.minimum(1.0, TICK - TICK * rng.random(size)), 0.0)
        slow = np.minimum(1.0, (inside + carried[runs]) / TICK)
        carried[runs] = np.where(starts, 1.0 - inside, 0.0)
        return rng.binomial(requests, slow), requests


def window(
    rate: float, seconds: float, share: float, clumps: Clumps, runs: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Bad requests and requests of a whole revision in a window, for rules that look at windows."""
    requests = rng.poisson(rate * seconds, runs)
    if clumps == "none" or share <= 0:
        return rng.binomial(requests, min(1.0, share)), requests
    if clumps == "batch":
        together = max(1, min(BATCH, round(rate * TICK / pods_for(rate))))
        return np.minimum(requests, together * rng.poisson(requests * share / together)), requests
    pods = pods_for(rate)
    bursts = rng.poisson(pods * seconds * share, runs)
    return np.minimum(requests, rng.poisson(bursts * rate / pods)), requests
