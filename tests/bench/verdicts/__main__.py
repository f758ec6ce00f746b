"""`make bench-verdicts`: false roll-backs, seconds to detect, requests exposed, beside the bound and two other tools.

    RUNS=10000 nice -n 15 make bench-verdicts

Writes build/bench/verdicts.{json,md,svg}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.verdicts import bound, serinus_rule
from bench.verdicts.others import RULES
from bench.verdicts.plot import draw
from bench.verdicts.rows import SLOW, Row, level, rows
from bench.verdicts.streams import TICK, pods_for

OUT = Path(__file__).parents[3] / "build" / "bench"
LONGEST = 600.0
"""Seconds of the step in which a bad candidate is looked for; rows whose bound is beyond half of it are left out."""


@dataclass
class Found:
    """One row's answers."""

    row: Row
    bound: float | None
    caught: dict[str, float] = field(default_factory=dict)
    """Share of runs that end in a roll-back, by rule."""
    median: dict[str, float] = field(default_factory=dict)
    """Seconds to the roll-back over all runs; infinity where fewer than half are rolled back."""
    p95: dict[str, float] = field(default_factory=dict)
    exposed: dict[str, float] = field(default_factory=dict)
    """Median number of requests that the bad candidate answers until the roll-back."""

    def add(self, rule: str, when: NDArray[np.float64]) -> None:
        self.caught[rule] = float(np.isfinite(when).mean())
        self.median[rule] = float(np.quantile(when, 0.5, method="higher"))
        self.p95[rule] = float(np.quantile(when, 0.95, method="higher"))
        self.exposed[rule] = self.median[rule] * self.row.rate


def simulate(row: Row, runs: int, seed: int) -> Found:
    """All rules on one row."""
    rng = np.random.default_rng(seed)
    found = Found(row, None if row.good else bound.seconds(row))
    whole = serinus_rule.release(row, runs, rng) if row.good else serinus_rule.step(row, runs, rng, 0, LONGEST)
    found.add("Serinus", whole)
    if row.live is None and row.swing is level:
        for rule in RULES:
            span = 30.0 if row.limit == SLOW else 60.0
            found.add(rule.name, rule.run(row.rate, row.share, row.limit, row.clumps, runs, rng, span))
    return found


def text(found: list[Found]) -> str:
    """The tables in Markdown."""
    names = [rule.name for rule in RULES]
    lines = ["| good candidates: rolled back | requests/s | Serinus | " + " | ".join(names) + " |"]
    lines.append("|---" * (3 + len(names)) + "|")
    for each in (each for each in found if each.row.good):
        shares = " | ".join(_percent(each.caught.get(name)) for name in ["Serinus", *names])
        lines.append(f"| {each.row.name} | {each.row.rate:g} | {shares} |")
    head = "| bad candidates: seconds to roll back, median (p95) | requests/s | bound | Serinus | "
    lines += ["", head + " | ".join(names) + " | exposed requests: Serinus | " + names[0] + " |"]
    lines.append("|---" * (6 + len(names)) + "|")
    for each in (each for each in found if not each.row.good):
        cells = " | ".join(_seconds(each, name) for name in ["Serinus", *names])
        shown = " | ".join(_number(each.exposed.get(name)) for name in ("Serinus", names[0]))
        lines.append(f"| {each.row.name} | {each.row.rate:g} | {each.bound:.3g} | {cells} | {shown} |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:,.0f}"


def _seconds(found: Found, name: str) -> str:
    if name not in found.median:
        return "-"
    median, p95 = (_number(value) for value in (found.median[name], found.p95[name]))
    return f"{median} ({p95})" if median != "-" else f"misses {100 * (1 - found.caught[name]):.0f} %"


def worst(found: list[Found], tool: str) -> tuple[float, int, int]:
    """Smallest ratio of exposed requests of `tool` to ours on rows that both catch, rows with 5 or more, and rows."""
    ratios = [
        each.exposed[tool] / each.exposed["Serinus"]
        for each in found
        if not each.row.good and min(each.caught.get(tool, 0.0), each.caught["Serinus"]) >= 0.5
    ]
    return min(ratios, default=float("inf")), sum(ratio >= 5 for ratio in ratios), len(ratios)


def main() -> int:
    """Prints the tables and a RESULT line; returns the exit code."""
    runs = int(os.environ.get("RUNS", "10000"))
    chosen = [row for row in rows() if row.good or bound.seconds(row) <= LONGEST / 4]
    started, found = time.perf_counter(), []
    for seed, row in enumerate(chosen):
        found.append(simulate(row, runs, seed))
        print(f"{time.perf_counter() - started:6.0f} s  {row.group}: {row.name}, {row.rate:g}/s", file=sys.stderr)
    print(text(found))
    good = [each for each in found if each.row.good]
    bad = [each for each in found if not each.row.good and each.bound is not None and each.row.rate >= 10]
    plain = [each for each in bad if each.row.group == "bad"]
    false = max(each.caught["Serinus"] for each in good)
    late = [each for each in plain if each.median["Serinus"] > 2 * (each.bound or 0) + TICK]
    for each in late:
        print(
            f"later than twice the bound and a tick: {each.row.name}, {each.row.rate:g}/s in {pods_for(each.row.rate)} "
            f"pods: {each.median['Serinus']:.0f} s, {2 * (each.bound or 0) + TICK:.1f} s allowed"
        )
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "verdicts.md").write_text(text(found) + "\n")
    (OUT / "verdicts.json").write_text(json.dumps([_plain(each) for each in found], indent=1))
    draw(found, OUT / "verdicts.svg")
    ratios = ", ".join(
        f"{tool} {least:.1f}x at least, 5x on {many} of {all_} rows"
        for tool in (rule.name for rule in RULES)
        for least, many, all_ in [worst(found, tool)]
    )
    print(
        f"RESULT verdicts: {len(found)} rows of {runs} runs in {time.perf_counter() - started:.0f} s; "
        f"false roll-backs at most {100 * false:.2f} % (alpha 1 %); median detection within twice the bound and a tick "
        f"on {len(plain) - len(late)} of {len(plain)} rows at 10 requests/s and more; exposed requests: {ratios}"
    )
    return 0 if false <= serinus_rule.ALPHA else 1


def _plain(found: Found) -> dict[str, object]:
    return {
        "row": found.row.name,
        "group": found.row.group,
        "rate": found.row.rate,
        "bound": found.bound,
        "caught": found.caught,
        "median": {name: value if np.isfinite(value) else None for name, value in found.median.items()},
        "p95": {name: value if np.isfinite(value) else None for name, value in found.p95.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
