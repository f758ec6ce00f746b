"""The matrix and what each cell must come to. Pure: tested without a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fraud.records import Record

SLO = {"p99": "300ms", "errorRate": "0.1%"}
_WEIGHTS = [{"weight": weight, "hold": "4s", "minRequests": 30} for weight in (20, 50)]
_SOON = {"rollbackWindow": "40s"}
STRATEGIES: Mapping[str, dict[str, Any]] = {
    "Canary": {"steps": _WEIGHTS, **_SOON},
    "BlueGreen": {"strategy": "BlueGreen", **_SOON},
    "shadow, then Canary": {
        "steps": [{"shadow": {"percent": 50, "duration": "5s", "minPairs": 60, "maxDisagreement": "5%"}}, *_WEIGHTS],
        **_SOON,
    },
    "smoke, then Canary": {"smokeTest": {"requests": 20}, "steps": _WEIGHTS, **_SOON},
}
"""`spec.release` by name, with holds as short as a cell is."""
CANDIDATES: Mapping[str, str] = {
    "good": "v2",
    "slow": "slow",
    "failing": "errors-5",
    "crashing": "crashing",
    "disagreeing": "disagreeing",
}
"""Kind of candidate and the version of the model that stands for it."""
DISTURBANCES = ("nothing", "operator killed", "Prometheus down", "gateway restarted")
CAUGHT = frozenset({"RolledBack", "Failed"})


@dataclass(frozen=True)
class Cell:
    """One release."""

    strategy: str
    candidate: str
    disturbance: str

    @property
    def key(self) -> str:
        return f"{self.strategy} / {self.candidate} / {self.disturbance}"

    @property
    def expected(self) -> frozenset[str]:
        """How the release may end. Only a shadow compares answers: who disagrees is good elsewhere."""
        good = self.candidate == "good" or (self.candidate == "disagreeing" and "shadow" not in self.strategy)
        return frozenset({"Promoted"}) if good else CAUGHT


def cells() -> list[Cell]:
    """All of them, the undisturbed first."""
    return [Cell(s, c, d) for d in DISTURBANCES for s in STRATEGIES for c in CANDIDATES]


@dataclass(frozen=True)
class Outcome:
    """What a cell came to."""

    key: str
    outcome: str
    reason: str
    seconds: float
    requests: int
    answered: int
    """Requests that the candidate answered, well or not."""
    own: int
    """Failed requests that are the candidate's: its answers, or connections that it broke."""
    others: int
    """Failed requests of everybody else: there must be none."""
    examples: list[str]
    """A few of the latter."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judged(
    cell: Cell, serves: str, outcome: str, reason: str, records: Sequence[Record], began: float, ended: float
) -> Outcome:
    """Whose failures they are.

    A candidate that dies answers nothing: the gateway's words for it carry no version. Such a failure is its own only
    while the candidate had traffic, and only where it is one that dies.
    """
    mine = [r for r in records if r.version == serves]
    first = min((r.at for r in mine), default=began)
    last = max((r.at + r.latency_ms / 1000 for r in mine), default=began)
    dies = cell.candidate == "crashing"
    own: list[Record] = []
    others: list[Record] = []
    for record in records:
        if record.failed:
            spoiled = dies and not record.version and first - 1 <= record.at <= max(last, ended) + 1
            (own if record.version == serves or spoiled else others).append(record)
    return Outcome(
        key=cell.key,
        outcome=outcome,
        reason=reason,
        seconds=ended - began,
        requests=len(records),
        answered=len(mine),
        own=len(own),
        others=len(others),
        examples=[f"{r.at - began:.1f} s: {r.code or r.error} of {r.version or 'nobody'}" for r in others[:5]],
    )


def kept(cell: Cell, found: Outcome) -> bool:
    """Whether the cell came to what it must: the right end, and nobody else's request failed."""
    good_is_good = cell.candidate != "good" or found.own == 0
    return found.outcome in cell.expected and found.others == 0 and good_is_good


def table(found: Mapping[str, Outcome]) -> str:
    """Markdown: strategies and candidates down, disturbances across."""
    lines = ["| strategy | candidate | " + " | ".join(DISTURBANCES) + " |", "|---|---|" + "---|" * len(DISTURBANCES)]
    for strategy in STRATEGIES:
        for candidate in CANDIDATES:
            shown = [_shown(Cell(strategy, candidate, d), found) for d in DISTURBANCES]
            lines.append(f"| {strategy} | {candidate} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _shown(cell: Cell, found: Mapping[str, Outcome]) -> str:
    one = found.get(cell.key)
    if one is None:
        return ""
    mark = "" if kept(cell, one) else "**"
    return f"{mark}{one.outcome}{mark}, {one.seconds:.0f} s, {one.others} + {one.own} of {one.requests}"


def result(found: Mapping[str, Outcome]) -> str:
    """`RESULT name=value ...`, for scripts."""
    known = [(cell, found[cell.key]) for cell in cells() if cell.key in found]
    values = {
        "cells": len(known),
        "of": len(cells()),
        "kept": sum(kept(cell, one) for cell, one in known),
        "requests": sum(one.requests for _, one in known),
        "failed_by_candidates": sum(one.own for _, one in known),
        "failed_otherwise": sum(one.others for _, one in known),
    }
    return "RESULT " + " ".join(f"{name}={value}" for name, value in values.items())
