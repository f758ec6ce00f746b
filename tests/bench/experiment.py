"""How soon an experiment finds a difference, and how often it finds one that is not there.

    python -m bench.experiment [--runs 4000]

Simulated traffic goes to the test that the operator uses (`serinus.evidence.twosample`), both directions at once, 100
looks per planned sample. Times are in multiples of the sample that a test with a single look would need
(`serinus.evidence.samplesize`). 4,000 runs a row take about three minutes.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np

from serinus.evidence.samplesize import sample_size
from serinus.evidence.twosample import Block, bet, centre, log_evidence, start

ALPHA, POWER = 0.05, 0.8
LOOKS = 100
"""Looks per planned sample."""


@dataclass(frozen=True)
class Row:
    """A truth: shares of successes of both versions, and the difference that the experiment is planned for."""

    baseline: float
    effect: float
    times: float
    """The true difference in multiples of `effect`."""
    longest: float
    """When the experiment is given up, in multiples of the planned sample."""


ROWS = tuple(
    Row(baseline, effect, times, 4.0 if times == 0 else 2.0)
    for baseline, effect in ((0.04, 0.005), (0.10, 0.01), (0.50, 0.02))
    for times in (0.0, 1.0, 2.0)
)


def run(row: Row, random: np.random.Generator) -> tuple[float, bool] | None:
    """When an experiment ended, in planned samples, and whether it called the candidate better; None if undecided."""
    live_size, candidate_size = sample_size(row.baseline, row.effect, ALPHA, POWER)
    steps = round(LOOKS * row.longest)
    n, m = max(1, live_size // LOOKS), max(1, candidate_size // LOOKS)
    y = random.binomial(n, row.baseline, steps).tolist()
    x = random.binomial(m, row.baseline + row.effect * row.times, steps).tolist()
    better, worse = start(), start()
    threshold = math.log(2 / ALPHA)
    trials = successes = 0
    for look in range(steps):
        share = centre(row.baseline, trials, successes)
        block = Block(n, y[look], m, x[look])
        better, worse = bet(better, block, share, row.effect), bet(worse, block, share, -row.effect)
        if log_evidence(better) >= threshold or log_evidence(worse) >= threshold:
            return (look + 1) / LOOKS, log_evidence(better) >= threshold
        trials += n + m
        successes += y[look] + x[look]
    return None


def main() -> int:
    """Prints the table. Ends with 1 where equal versions are told apart more often than `ALPHA` allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    runs = parser.parse_args().runs
    random = np.random.default_rng(20261121)
    heads = (
        "baseline",
        "effect planned for",
        "true difference",
        "better",
        "worse",
        "within 1 x",
        "within 2 x",
        "median",
    )
    print("| " + " | ".join(heads) + " |")
    print("|---|---|---|---|---|---|---|---|")
    false, found = 0.0, 1.0
    for row in ROWS:
        ends = [run(row, random) for _ in range(runs)]
        right = sorted(end[0] for end in ends if end is not None and end[1])
        wrong = sum(end is not None and not end[1] for end in ends) / runs
        once, twice = (sum(at <= limit for at in right) / runs for limit in (1.0, 2.0))
        median = f"{right[runs // 2]:.2f} x" if len(right) > runs // 2 else "-"
        print(
            f"| {row.baseline:.0%} | {row.effect:.1%} | {row.times:g} x | {len(right) / runs:.1%} | {wrong:.1%} "
            f"| {once:.0%} | {twice:.0%} | {median} |",
            flush=True,
        )
        if row.times == 0:
            false = max(false, len(right) / runs + wrong)
        elif row.times == 1:
            found = min(found, twice)
    print(f"RESULT runs={runs} false_at_most={false:.4f} alpha={ALPHA} found_within_twice_at_least={found:.3f}")
    slack = 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    return 1 if false > ALPHA + slack else 0


if __name__ == "__main__":
    sys.exit(main())
