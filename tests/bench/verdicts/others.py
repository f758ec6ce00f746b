"""Flagger's and Argo Rollouts' rules, as their sources state them, on the same invented traffic.

Flagger v1.44 (`pkg/controller/scheduler.go`, `scheduler_metrics.go`, `pkg/apis/flagger/v1beta1/canary.go`): every
`interval` the metrics of the last window are compared with their limits; a check that fails, or finds no value, adds
one to `failedChecks`, which nothing resets during the analysis; a check that passes raises the weight. At the next
interval after `failedChecks >= threshold` the canary is rolled back. The first interval only sets the first weight.
Defaults: interval 60 s (10 s at least), threshold 1, window 1 m. The example of the Gateway API guide: interval 1 m,
threshold 5, weights 10 to 50 by 10, error rate over 1 m, p99 over 30 s.

Argo Rollouts v1.9.1 (`analysis/analysis.go`): a measurement that misses its condition is a failed one; the run fails
when more than `failureLimit` (default 0) have. No value is an error, not a failure. The background analysis of its
documentation: interval 5 m, failureLimit 3, `irate` over the last two scrapes, while the weights go 20, 40, 60, 80 with
ten minutes each.

Limits are those of the SLO in both: the limits of their examples (1 %, 95 %) would not hold the SLO.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.verdicts.streams import Clumps, window

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Flagger:
    """Times of roll-back; infinity where it promotes."""

    name: str
    interval: float
    threshold: int
    passes: int = 5
    """Checks that must pass until the promotion: one per weight."""

    def run(
        self, rate: float, share: float, limit: float, clumps: Clumps, runs: int, rng: np.random.Generator, span: float
    ) -> Floats:
        failed, passed = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
        when = np.full(runs, np.inf)
        undecided = np.ones(runs, bool)
        for check in range(1, self.passes + self.threshold + 1):
            bad, requests = window(rate, min(span, self.interval), share, clumps, runs, rng)
            missed = (requests == 0) | (bad > limit * requests)
            failed += undecided & missed
            passed += undecided & ~missed
            over = undecided & (failed >= self.threshold)
            when[over] = (check + 1) * self.interval
            undecided &= ~over & (passed < self.passes)
        return when


@dataclass(frozen=True)
class Argo:
    """Times of the abort; infinity where it promotes."""

    name: str
    interval: float
    failure_limit: int
    lasts: float = 2400.0
    """Seconds until the last step is over."""
    scrape: float = 15.0

    def run(
        self, rate: float, share: float, limit: float, clumps: Clumps, runs: int, rng: np.random.Generator, span: float
    ) -> Floats:
        failed, when = np.zeros(runs, np.int64), np.full(runs, np.inf)
        for measurement in range(1, int(self.lasts / self.interval) + 1):
            bad, requests = window(rate, self.scrape, share, clumps, runs, rng)
            failed += (requests > 0) & (bad > limit * requests)
            over = np.isinf(when) & (failed > self.failure_limit)
            when[over] = measurement * self.interval
        return when


RULES = (
    Flagger("Flagger, defaults", 60.0, 1),
    Flagger("Flagger, example", 60.0, 5),
    Flagger("Flagger, fastest", 10.0, 1),
    Argo("Argo, example", 300.0, 3),
)
