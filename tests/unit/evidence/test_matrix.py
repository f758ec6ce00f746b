"""The release matrix: what is played when, whose failures they are, and what each cell must come to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.matrix.batches import HEAVY, batch
from bench.matrix.cells import CANDIDATES, CAUGHT, DISTURBANCES, NEIGHBOURS, SHARED, Cell, cells, judged, kept
from bench.matrix.lane import since_answered
from bench.matrix.picture import PROMOTED, STOPPED, UNKNOWN, WRONG, colour, draw
from bench.matrix.report import result, table
from bench.matrix.strategies import STRATEGIES, plan
from bench.matrix.trouble import TROUBLE, Strike
from fraud.records import Record
from serinus.api.steps import StepKind
from support.faults import FAULTS
from unit.release.world import spec


def record(at: float, version: str, code: int = 200) -> Record:
    return Record(at, 10.0, code, "" if code else "reset", version, "", "keepalive", 1)


def test_every_strategy_meets_every_candidate_and_every_disturbance() -> None:
    found = cells()
    assert len(set(found)) == len(found) == len(STRATEGIES) * len(CANDIDATES) * len(DISTURBANCES)
    assert set(CANDIDATES.values()) <= {"v2", *FAULTS}
    assert set(TROUBLE) == set(SHARED)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_strategies_are_good_specs(name: str, candidate: str) -> None:
    release = spec("v2", release=plan(name, candidate, "new-1", "a.example.com")).release
    kinds = {step.kind for step in release.plan_steps()}
    assert (StepKind.EXPERIMENT in kinds) == STRATEGIES[name].experiment
    assert (StepKind.PREVIEW in kinds) == STRATEGIES[name].testers
    assert (release.sticky is not None) == (STRATEGIES[name].users > 0)


def test_who_looks_at_answers_must_catch_other_answers() -> None:
    looks = {name for name in STRATEGIES if Cell(name, "disagreeing", "nothing").expected == CAUGHT}
    assert looks == {"shadow, then Canary", "AB"}
    for name in STRATEGIES:
        assert Cell(name, "good", "nothing").expected == {"Promoted"}
        for bad in ("slow", "failing", "crashing"):
            assert Cell(name, bad, "nothing").expected == CAUGHT


def play(count: int, lanes: int) -> list[list[Cell]]:
    todo, met, found = cells(), list[Cell](), list[list[Cell]]()
    while len(met) < count and (chosen := batch(todo, met, lanes)):
        found.append(chosen)
        met += chosen
        todo = [cell for cell in todo if cell not in chosen]
    return found


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_batches_play_every_cell_once(lanes: int) -> None:
    found = play(1000, lanes)
    played = [cell for chosen in found for cell in chosen]
    assert sorted(cell.key for cell in played) == sorted(cell.key for cell in cells())
    for chosen in found:
        assert len({cell.disturbance for cell in chosen}) == 1
        assert len(chosen) <= (lanes if chosen[0].disturbance in SHARED else 2 * lanes)
        assert sum(cell.candidate == HEAVY for cell in chosen) <= 1


def test_a_run_that_is_cut_short_has_something_of_everything() -> None:
    def pairs(chosen: Sequence[Cell]) -> tuple[set[tuple[str, str]], ...]:
        return (
            {(cell.strategy, cell.candidate) for cell in chosen},
            {(cell.strategy, cell.disturbance) for cell in chosen},
            {(cell.candidate, cell.disturbance) for cell in chosen},
        )

    played = [cell for chosen in play(60, 2) for cell in chosen]
    for some, every in zip(pairs(played), pairs(cells()), strict=True):
        assert len(some) >= 0.9 * len(every), f"after {len(played)} cells only {sorted(some)}"


def test_what_was_met_before_comes_last() -> None:
    met = [cell for cell in cells() if cell.strategy == "Canary"]
    chosen = batch([cell for cell in cells() if cell.disturbance == "nothing"], met, 2)
    assert {cell.strategy for cell in chosen}.isdisjoint({"Canary"})


def test_a_strike_comes_once_when_all_lanes_are_there() -> None:
    here: list[int] = []
    seen: list[int] = []
    strike = Strike(lambda: seen.append(len(here)), 3)

    def lane(number: int) -> None:
        here.append(number)
        strike.meet()

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [3]


def test_a_lane_that_leaves_does_not_spare_the_others() -> None:
    seen: list[str] = []
    strike = Strike(lambda: seen.append("struck"), 2)
    strike.leave()
    strike.meet()
    strike.meet()
    assert seen == ["struck"]


def test_a_strike_that_is_cancelled_does_not_come() -> None:
    seen: list[str] = []
    strike = Strike(lambda: seen.append("struck"), 2)
    strike.cancel()
    strike.meet()
    assert seen == []


def test_a_strike_that_fails_is_known_to_every_lane() -> None:
    def act() -> None:
        raise OSError("it did not stop")

    strike = Strike(act, 2)
    strike.leave()
    for _ in range(2):
        with pytest.raises(OSError, match="did not stop"):
            strike.meet()


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


def test_who_waits_in_vain_while_all_users_are_with_a_slow_candidate_waits_for_it() -> None:
    def around(at: float, versions: tuple[str, str]) -> list[Record]:
        late = [Record(at, 15_000.0, 0, "timeout", "", "", "keepalive", 1), record(at, "", 504)]
        before = [record(at - 1 - 0.01 * n, versions[0]) for n in range(NEIGHBOURS)]
        return before + late + [record(at + 1 + 0.01 * n, versions[1]) for n in range(NEIGHBOURS)]

    def others(candidate: str, records: list[Record]) -> int:
        return judged(Cell("BlueGreen", candidate, "nothing"), "bad", "RolledBack", "", records, 0.0, 60.0).others

    assert others("slow", around(20, ("bad", "bad"))) == 0
    assert others("good", around(20, ("bad", "bad"))) == 2
    assert others("slow", around(20, ("v1", "bad"))) == others("slow", around(20, ("bad", "v1"))) == 2
    mixed = [*around(20, ("bad", "bad")), record(20.1, "v1")]
    assert others("slow", mixed) == 2
    assert others("slow", [*around(20, ("bad", "bad")), record(20, "", 503)]) == 1


def test_each_crowd_counts_from_its_first_answer_and_not_from_before_the_cell() -> None:
    users = [record(1, "", 404), record(2, "v1"), record(3, "", 404), record(6, "v1"), record(7, "", 503)]
    testers = [record(6, "", 404), record(8, "bad"), record(9, "", 503)]
    nobody = [record(4, "", 503), record(6, "", 503)]
    found = since_answered([users, testers, nobody], 5.0)
    assert [(each.at, each.code) for each in found] == [(6, 200), (6, 503), (7, 503), (8, 200), (9, 503)]


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


def test_table_and_picture_show_what_is_not_as_it_must_be(tmp_path: Path) -> None:
    cell = Cell("Canary", "good", "nothing")
    wrong = judged(cell, "new", "RolledBack", "x", [record(5, "new")], 0.0, 10.0)
    right = judged(cell, "new", "Promoted", "", [record(5, "new")], 0.0, 10.0)
    caught = judged(Cell("Canary", "slow", "nothing"), "new", "Failed", "", [], 0.0, 10.0)
    assert "**RolledBack**, 10 s, 0 + 0 of 1" in table({cell.key: wrong})
    assert result({cell.key: wrong}).startswith(f"RESULT cells=1 of={len(cells())} kept=0 requests=1")
    assert [colour(cell, one) for one in (None, wrong, right)] == [UNKNOWN, WRONG, PROMOTED]
    assert colour(Cell("Canary", "slow", "nothing"), caught) == STOPPED
    draw({cell.key: wrong}, tmp_path / "matrix.svg")
    assert WRONG.lower() in (tmp_path / "matrix.svg").read_text().lower()
