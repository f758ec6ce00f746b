"""The table, the picture's numbers and the RESULT line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.exposure.measure import Figures
from bench.exposure.trials import BAD, CONTENDERS, GOOD

WHAT = {
    "errors-100": "every request fails",
    "errors-5": "5 % of requests fail",
    "errors-1": "1 % of requests fail",
    "slow": "4 % of requests are slow",
    "crashing": "killed by some requests",
}


@dataclass(frozen=True)
class Row:
    """Medians over the trials of one version under one contender."""

    version: str
    contender: str
    trials: int
    caught: int
    detect: float | None
    rollback: float | None
    exposed: float
    bad: float


def rows(found: Sequence[Figures]) -> list[Row]:
    """A row for each bad version and contender that was tried."""
    made = []
    for version in BAD:
        for who in CONTENDERS:
            mine = [each for each in found if each.version == version and each.contender == who.name]
            if mine:
                caught = [each for each in mine if each.outcome == "RolledBack"]
                made.append(
                    Row(
                        version,
                        who.name,
                        len(mine),
                        len(caught),
                        _median([each.detect for each in caught]),
                        _median([each.rollback for each in caught]),
                        statistics.median(each.exposed for each in mine),
                        statistics.median(each.bad for each in mine),
                    )
                )
    return made


def false_alarms(found: Sequence[Figures]) -> dict[str, tuple[int, int]]:
    """Good releases that were rolled back, and all that ended, by contender."""
    good = [each for each in found if each.version == GOOD and each.outcome != "Unfinished"]
    tried = {who.name: [each for each in good if each.contender == who.name] for who in CONTENDERS}
    return {
        name: (sum(each.outcome == "RolledBack" for each in mine), len(mine)) for name, mine in tried.items() if mine
    }


def table(found: Sequence[Figures]) -> str:
    """Markdown."""
    lines = [
        "| bad version | controller | caught | seconds to detect | seconds to roll back | users' bad requests |"
        " requests it answered |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(found):
        caught = f"{row.caught} of {row.trials}"
        times = f"{_shown(row.detect)} | {_shown(row.rollback)}"
        lines.append(
            f"| {WHAT[row.version]} | {row.contender} | {caught} | {times} | {row.bad:.0f} | {row.exposed:.0f} |"
        )
    alarms = false_alarms(found)
    if alarms:
        lines += ["", "| good versions | rolled back |", "|---|---|"]
        lines += [f"| {name} | {wrong} of {count} |" for name, (wrong, count) in alarms.items()]
    return "\n".join(lines)


def result(found: Sequence[Figures]) -> str:
    """`RESULT name=value ...`, for scripts."""
    values: dict[str, str] = {"trials": str(len(found))}
    for row in rows(found):
        name = f"{row.contender.lower().replace(', ', '_').replace(' ', '_')}_{row.version.replace('-', '_')}"
        values[f"{name}_detect_s"] = _shown(row.detect)
        values[f"{name}_bad"] = f"{row.bad:.0f}"
    for contender, (wrong, count) in false_alarms(found).items():
        values[f"{contender.lower().replace(', ', '_').replace(' ', '_')}_false"] = f"{wrong}/{count}"
    return "RESULT " + " ".join(f"{key}={value}" for key, value in values.items())


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
