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
from bench.verdicts.streams import TICK

OUT = Path(__file__).parents[3] / "build" / "bench"
LONGEST = 600.0
"""Seconds of the step in which a bad candidate is looked for; rows whose bound is beyond half of it are left out."""
COUNTED = 10
"""Requests per second from which the target for the time to detect counts."""
FEWER = 5
"""Target: how many times fewer requests are exposed than by Flagger's defaults."""


@dataclass
class Found:
    """One row's answers."""

    row: Row
    bound: float | None
    """Seconds, for a test that knows requests to be independent."""
    proof: float | None
    """Seconds, for a test that holds whatever happens inside a block."""
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

    def within(self, bound: float | None) -> bool:
        """The target: a median of at most twice the bound and a tick."""
        return bound is not None and self.median["Serinus"] <= 2 * bound + TICK

    def ratio(self, tool: str) -> float | None:
        """How many times as many requests `tool` exposes; None where not both catch."""
        if min(self.caught.get(tool, 0.0), self.caught["Serinus"]) < 0.5:
            return None
        return self.exposed[tool] / self.exposed["Serinus"]


def simulate(row: Row, runs: int, seed: int) -> Found:
    """All rules on one row."""
    rng = np.random.default_rng(seed)
    found = Found(row, *((None, None) if row.good else (bound.seconds(row), bound.clump_proof(row))))
    hold = LONGEST if found.proof is None or 3 * found.proof <= LONGEST else 2 * LONGEST
    whole = serinus_rule.release(row, runs, rng) if row.good else serinus_rule.step(row, runs, rng, 0, hold)
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
    head = "| bad candidates: seconds to roll back, median (p95) | requests/s | bound | clump-proof | Serinus | "
    kept = (
        " | exposed requests: Serinus | " + names[0] + " | in 2x bound + tick | in 2x clump-proof + tick | 5x fewer |"
    )
    lines += ["", head + " | ".join(names) + kept]
    lines.append("|---" * (10 + len(names)) + "|")
    for each in (each for each in found if not each.row.good):
        cells = " | ".join(_seconds(each, name) for name in ["Serinus", *names])
        shown = " | ".join(_number(each.exposed.get(name)) for name in ("Serinus", names[0]))
        bounds = f"{each.bound:.3g} | {each.proof:.3g}"
        lines.append(
            f"| {each.row.name} | {each.row.rate:g} | {bounds} | {cells} | {shown} | {_kept(each, names[0])} |"
        )
    return "\n".join(lines)


def _kept(found: Found, tool: str) -> str:
    ratio = found.ratio(tool)
    in_time = [_yes(found.within(each)) if found.row.rate >= COUNTED else "-" for each in (found.bound, found.proof)]
    return " | ".join([*in_time, "-" if ratio is None else _yes(ratio >= FEWER)])


def _yes(kept: bool) -> str:
    return "yes" if kept else "**no**"


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
    ratios = [ratio for each in found if not each.row.good and (ratio := each.ratio(tool)) is not None]
    return min(ratios, default=float("inf")), sum(ratio >= FEWER for ratio in ratios), len(ratios)


def in_time(found: list[Found]) -> dict[str, str]:
    """On how many rows the target for the time to detect is kept (`24/26`), by kind of row and bound."""
    counted = [each for each in found if not each.row.good and each.row.rate >= COUNTED]
    parts = {}
    for group in dict.fromkeys(each.row.group for each in counted):
        of_it = [each for each in counted if each.row.group == group]
        name = group.replace(", ", "_").replace(" ", "_")
        parts[f"{name}_in_2x_bound"] = f"{sum(e.within(e.bound) for e in of_it)}/{len(of_it)}"
        parts[f"{name}_in_2x_clump_proof"] = f"{sum(e.within(e.proof) for e in of_it)}/{len(of_it)}"
    return parts


def _fewer(found: list[Found]) -> dict[str, str]:
    _, many, of = worst(found, RULES[0].name)
    return {"5x_fewer_exposed_than_flagger_defaults": f"{many}/{of}"}


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
    false = max(each.caught["Serinus"] for each in good)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "verdicts.md").write_text(text(found) + "\n")
    (OUT / "verdicts.json").write_text(json.dumps([_plain(each) for each in found], indent=1))
    draw(found, OUT / "verdicts.svg")
    print(f"{len(found)} rows of {runs} runs in {time.perf_counter() - started:.0f} s")
    for tool in (rule.name for rule in RULES):
        least, many, rows_ = worst(found, tool)
        print(f"exposed requests: {tool} {least:.1f} times ours at least, {FEWER} times on {many} of {rows_} rows")
    pairs = {"rows": len(found), "runs": runs, "false_rollbacks_at_most": f"{false:.4f}", "alpha": serinus_rule.ALPHA}
    print("RESULT", *(f"{name}={value}" for name, value in {**pairs, **in_time(found), **_fewer(found)}.items()))
    return 0 if false <= serinus_rule.ALPHA else 1


def _plain(found: Found) -> dict[str, object]:
    return {
        "row": found.row.name,
        "group": found.row.group,
        "rate": found.row.rate,
        "bound": found.bound,
        "clump_proof": found.proof,
        "caught": found.caught,
        "median": {name: value if np.isfinite(value) else None for name, value in found.median.items()},
        "p95": {name: value if np.isfinite(value) else None for name, value in found.p95.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
