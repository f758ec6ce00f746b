"""The release matrix: whose failures they are, and what each cell must come to."""

from __future__ import annotations

import pytest

from bench.matrix.cells import CANDIDATES, CAUGHT, DISTURBANCES, STRATEGIES, Cell, cells, judged, kept, result, table
from fraud.records import Record
from support.faults import FAULTS
from unit.release.world import spec


def record(at: float, version: str, code: int = 200) -> Record:
    return Record(at, 10.0, code, "" if code else "reset", version, "", "keepalive", 1)


def test_every_strategy_meets_every_candidate_and_every_disturbance() -> None:
    found = cells()
    assert len(set(found)) == len(found) == len(STRATEGIES) * len(CANDIDATES) * len(DISTURBANCES)
    assert set(CANDIDATES.values()) <= {"v2", *FAULTS}


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_are_good_specs(name: str) -> None:
    assert spec("v2", release=STRATEGIES[name]).release is not None


@pytest.mark.parametrize(
    ("candidate", "records", "own", "others"),
    [
        ("failing", [record(5, "bad", 500), record(6, "v1")], 1, 0),
        ("failing", [record(5, "bad"), record(5.1, "", 503)], 0, 1),
        ("failing", [record(5, "v1", 500)], 0, 1),
        ("crashing", [record(5, "bad"), record(5.2, "", 503), record(5.3, "", 0)], 2, 0),
        ("crashing", [record(1, "", 503), record(5, "bad")], 0, 1),
        ("crashing", [record(5, "bad"), record(30, "", 503)], 0, 1),
        ("good", [record(5, "bad", 500)], 1, 0),
    ],
)
def test_whose_failures(candidate: str, records: list[Record], own: int, others: int) -> None:
    cell = Cell("Canary", candidate, "nothing")
    found = judged(cell, "bad", "RolledBack", "", records, 0.0, 10.0)
    assert (found.own, found.others) == (own, others)


def test_a_cell_is_kept_by_its_end_and_by_others_failures() -> None:
    def one(candidate: str, outcome: str, records: list[Record]) -> bool:
        cell = Cell("Canary", candidate, "nothing")
        return kept(cell, judged(cell, "new", outcome, "", records, 0.0, 10.0))

    assert one("good", "Promoted", [record(5, "new")])
    assert not one("good", "Promoted", [record(5, "new", 500)]), "a good one that failed"
    assert not one("good", "RolledBack", [])
    assert one("failing", "RolledBack", [record(5, "new", 500)])
    assert not one("failing", "Promoted", [])
    assert not one("failing", "RolledBack", [record(5, "v1", 500)])
    assert Cell("Canary", "slow", "nothing").expected == CAUGHT


def test_the_table_shows_what_is_not_as_it_must_be() -> None:
    cell = Cell("Canary", "good", "nothing")
    found = judged(cell, "new", "RolledBack", "x", [record(5, "new")], 0.0, 10.0)
    assert "**RolledBack**, 10 s, 0 + 0 of 1" in table({cell.key: found})
    assert result({cell.key: found}).startswith(f"RESULT cells=1 of={len(cells())} kept=0 requests=1")
