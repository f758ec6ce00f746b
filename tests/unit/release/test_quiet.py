"""After a promotion little is written, and whoever resumes from what was written decides nearly the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.shown import Capital, Counts
from serinus.api.status import ModelDeploymentStatus, Watch
from serinus.collector import FRESH
from serinus.evidence.sequential import log_evidence
from serinus.release.machine import decide
from serinus.release.observed import Evidence, Input
from serinus.release.quiet import FACTOR, NOTHING, resumed, worth_storing
from serinus.simulation.draws import binomial, poisson
from unit.release.world import World, settled, spec, stored, with_live

LOOK = 15.0


def promoted() -> tuple[World, str]:
    """v2 has just become live, and v1 is warm for an hour."""
    changes = {
        "release": {"steps": [{"weight": 5, "hold": "20s", "minRequests": 50}], "rollbackWindow": "1h"},
    }
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.tick()
    world.run(lambda w: settled(w) and w.live() == "v2")
    return world, world.target().name


@dataclass
class Operator:
    """Looks, every fifteen seconds at rest, keeps the watch in memory, and writes only what is worth it."""

    given: Input
    status: ModelDeploymentStatus
    remembered: Watch | None = None
    looks: int = 0
    writes: int = 0

    def look(self, blocks: tuple[Counts, ...], revision: str, after: float = LOOK) -> ModelDeploymentStatus:
        total = Counts(
            requests=sum(each.requests for each in blocks),
            errors=sum(each.errors for each in blocks),
            slow=sum(each.slow for each in blocks),
        )
        self.looks += 1
        self.given = replace(
            self.given,
            now=self.given.now + timedelta(seconds=after),
            status=resumed(self.status, self.remembered),
            evidence=Evidence(True, "", {revision: total}, {revision: blocks}),
        )
        fresh = decide(self.given).status
        self.remembered = fresh.watch
        if worth_storing(self.status, fresh):
            self.writes += 1
            self.status = stored(fresh)
        return fresh

    def restart(self) -> None:
        self.remembered = None


def blocks(rng: Random, rate: float, errors: float, seconds: float = LOOK) -> tuple[Counts, ...]:
    made = []
    for _ in range(2):
        requests = poisson(rate * seconds / 2, rng)
        made.append(Counts(requests=requests, errors=binomial(requests, errors, rng)))
    return tuple(made)


def operator() -> tuple[Operator, str]:
    world, name = promoted()
    return Operator(world.given(), world.status), name


def capitals(watch: Watch) -> dict[str, float]:
    def size(capital: Capital) -> float:
        return log_evidence(capital.invested, capital.held_back) if capital.invested else 0.0

    return {
        **{name: size(each) for name, each in watch.tests.items()},
        **{f"lately {name}": size(each) for name, each in watch.tests_lately.items()},
    }


@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_a_good_one_is_written_about_rarely(rate: float) -> None:
    works, name = operator()
    rng = Random(1)
    began = works.given.now
    while works.status.previous is not None:
        after = 2.0 if (works.given.now - began).total_seconds() < FRESH else LOOK
        works.look(blocks(rng, rate, 0.0002, after), name, after)
    assert works.looks >= 150 + 219
    assert works.writes < 80
    assert works.status.live is not None
    assert works.status.live.version == "v2"


def test_without_requests_nothing_is_written() -> None:
    works, name = operator()
    works.look((Counts(),), name)
    before = works.writes
    for _ in range(100):
        works.look((Counts(),), name)
    assert works.writes == before


@given(data=st.data(), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_what_is_stored_is_never_far_from_what_is_known(data: st.DataObject, seed: int) -> None:
    works, name = operator()
    rng = Random(seed)
    rate = data.draw(st.sampled_from([1.0, 30.0, 1000.0]))
    for _ in range(60):
        if data.draw(st.integers(0, 9)) == 0:
            works.restart()
        fresh = works.look(blocks(rng, rate, data.draw(st.sampled_from([0.0, 0.0005, 0.002]))), name)
        if fresh.release is not None or fresh.watch is None:
            return
        assert works.status.watch is not None
        known, kept = capitals(fresh.watch), capitals(works.status.watch)
        assert known.keys() == kept.keys()
        assert fresh.watch.slice == works.status.watch.slice
        for test, value in known.items():
            near = abs(value - kept[test]) <= math.log(FACTOR) + 1e-9
            assert near or max(value, kept[test]) <= math.log(NOTHING), test


@given(seed=st.integers(0, 10**6), restarts=st.lists(st.booleans(), min_size=12, max_size=12))
@settings(deadline=None, max_examples=20)
def test_a_bad_one_is_found_soon_although_the_operator_dies_again_and_again(seed: int, restarts: list[bool]) -> None:
    works, name = operator()
    rng = Random(seed)
    for _ in range(20):
        works.look(blocks(rng, 100.0, 0.0002), name)
    for dies in restarts:
        if dies:
            works.restart()
        if works.look(blocks(rng, 100.0, 0.2), name).release is not None:
            return
    raise AssertionError("not rolled back")


def test_memory_of_another_promotion_counts_for_nothing() -> None:
    works, name = operator()
    works.look((Counts(requests=100),), name)
    status = works.status
    assert status.watch is not None
    other = status.watch.model_copy(update={"revision": "other", "slice": 7})
    assert resumed(status, other) == status
    assert resumed(status.model_copy(update={"watch": None}), status.watch).watch is None


def test_anything_else_is_written_at_once() -> None:
    works, _ = operator()
    status = works.status
    assert not worth_storing(status, status)
    assert worth_storing(status, status.model_copy(update={"acted": {"abort": "1"}}))
    assert worth_storing(status, status.model_copy(update={"watch": None})) is (status.watch is not None)
