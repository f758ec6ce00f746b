"""The cells of the matrix, what each must come to, and whose failures they are. Pure: tested without a cluster."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.matrix.strategies import STRATEGIES
from fraud.records import Record

SLO = {"p99": "300ms", "errorRate": "0.1%"}
CANDIDATES: Mapping[str, str] = {
    "good": "v2",
    "slow": "slow",
    "failing": "errors-5",
    "crashing": "crashing",
    "disagreeing": "disagreeing",
}
"""Kind of candidate and the version of the model that stands for it."""
SHARED = ("Prometheus down", "gateway restarted")
"""What hits every release of the cluster."""
DISTURBANCES = ("nothing", "operator killed", *SHARED)
NEIGHBOURS = 20
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
        """How the release may end. A candidate that answers well, but something else than the live version, is good
        for everybody who does not look at answers: a shadow does, and an experiment at what comes of them."""
        unseen = self.candidate == "disagreeing" and not STRATEGIES[self.strategy].compares
        return frozenset({"Promoted"}) if self.candidate == "good" or unseen else CAUGHT


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
    load: float = 0.0
    """The machine's load average at the end: far above its cores, users fail for want of a processor."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judged(
    cell: Cell, serves: str, outcome: str, reason: str, records: Sequence[Record], began: float, ended: float
) -> Outcome:
    """Whose failures they are.

    A candidate that dies answers nothing: the gateway's words for it carry no version. Such a failure is its own only
    while the candidate had traffic, and only where it is one that dies. A slow one may have no answer before the client
    or the gateway has waited long enough: that is its own where nobody else had traffic, which is known by those that
    were answered, `NEIGHBOURS` before and as many after.
    """
    mine = [r for r in records if r.version == serves]
    first = min((r.at for r in mine), default=began)
    last = max((r.at + r.latency_ms / 1000 for r in mine), default=began)
    dies = cell.candidate == "crashing"
    answered = sorted((r for r in records if r.version), key=lambda r: r.at)
    departed = [r.at for r in answered]

    def waited_in_vain(record: Record) -> bool:
        if cell.candidate != "slow" or not (record.error == "timeout" or record.code == 504):
            return False
        place = bisect_left(departed, record.at)
        around = answered[max(0, place - NEIGHBOURS) : place], answered[place : place + NEIGHBOURS]
        return all(len(side) == NEIGHBOURS and {r.version for r in side} == {serves} for side in around)

    own: list[Record] = []
    others: list[Record] = []
    for record in records:
        if record.failed:
            spoiled = dies and not record.version and first - 1 <= record.at <= max(last, ended) + 1
            spoiled = spoiled or (not record.version and waited_in_vain(record))
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
