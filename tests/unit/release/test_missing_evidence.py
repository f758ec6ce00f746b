"""Provider down, NaN, stale, several series, partial scrape: each holds the step, says so, and ends by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from serinus.api.status import Phase
from serinus.evidence.book import Book
from serinus.evidence.counters import Series, Snapshot
from serinus.release.coverage import GRACE
from serinus.release.observed import Evidence
from unit.release.world import NAME, World, settled, spec, with_live

OWNER = ("shop", NAME)
Counters = dict[str, dict[Series, float]]


class Scraped(World):
    """A world whose evidence goes through the real book, from counters by pod."""

    def __init__(self, world: World) -> None:
        super().__init__(**{name: getattr(world, name) for name in World.__dataclass_fields__})
        self.book = Book()
        self.totals: dict[tuple[str, int], float] = {}
        self.spoil: Callable[[Counters, str], Counters | str] | None = None
        self.mark: Mapping[object, object] = {}

    def evidence(self) -> Evidence:
        counters: Counters = {"requests": {}, "errors": {}, "slow": {}}
        for revision, pods in self.ready.items():
            for pod in range(pods):
                series = (*OWNER, revision, f"10.0.0.{pod}:8080")
                counters["requests"][series] = self.totals.get((revision, pod), 0.0)
                counters["errors"][series] = counters["slow"][series] = 0.0
        spoilt = self.spoil(counters, self.target().name) if self.spoil else counters
        if isinstance(spoilt, str):
            self.book.fail(spoilt)
        else:
            self.book.take(Snapshot(self.now.timestamp(), spoilt))
        evidence, self.mark = self.book.read(OWNER)  # type: ignore[assignment]
        return evidence

    def serve(self, seconds: float) -> None:
        self.book.settle(OWNER, self.mark)  # type: ignore[arg-type]
        super().serve(seconds)
        total = sum(self.route.values())
        for revision, weight in self.route.items():
            for pod in range(self.ready.get(revision, 0)):
                share = self.rate * seconds * weight / total / self.ready[revision] if total else 0.0
                self.totals[revision, pod] = self.totals.get((revision, pod), 0.0) + share


def down(_counters: Counters, _candidate: str) -> str:
    return "Prometheus cannot be reached"


def stale(counters: Counters, candidate: str) -> Counters:
    """The candidate's series are gone: its targets are down, or their last samples too old."""
    return {name: {s: v for s, v in found.items() if s[2] != candidate} for name, found in counters.items()}


def nan(counters: Counters, candidate: str) -> Counters:
    """As `stale`: a NaN is left out by the client, pod by pod. Here it is one pod's."""
    return partial(counters, candidate)


def partial(counters: Counters, candidate: str) -> Counters:
    """One pod of the candidate is not scraped."""
    return {
        name: {s: v for s, v in found.items() if s[2] != candidate or not s[3].startswith("10.0.0.1:")}
        for name, found in counters.items()
    }


def at_canary() -> Scraped:
    world = with_live()
    world.apply(spec("v2"))
    scraped = Scraped(world)
    scraped.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    return scraped


def condition(world: World) -> str | None:
    return next((c.reason for c in world.status.conditions if c.type == "EvidenceMissing"), None)


@pytest.mark.parametrize(
    ("spoil", "reason", "shown"),
    [
        (down, "EvidenceMissing", "PrometheusUnavailable"),
        (stale, "EvidencePartial", "EvidencePartial"),
        (nan, "EvidencePartial", "EvidencePartial"),
        (partial, "EvidencePartial", "EvidencePartial"),
    ],
)
def test_it_holds_says_so_and_goes_on_by_itself(
    spoil: Callable[[Counters, str], Counters | str], reason: str, shown: str
) -> None:
    world = at_canary()
    world.spoil = spoil
    for _ in range(60):
        world.tick()
        assert world.status.release is not None
        assert (world.status.release.phase, world.status.release.weight) == (Phase.CANARY, 5)
    assert world.status.release.reason == reason
    assert condition(world) == shown
    assert [note.reason for note in world.notes].count(reason) == 1, "one event, not one per look"
    world.spoil = None
    world.run(settled)
    assert world.live() == "v2"
    assert condition(world) is None


def test_how_many_pods_are_seen_is_said() -> None:
    world = at_canary()
    world.spoil = partial
    for _ in range(30):
        world.tick()
    assert world.status.release is not None
    assert "Prometheus has series of 1 of 2 ready pods" in (world.status.release.message or "")


def test_a_pod_that_was_not_scraped_yet_is_no_condition_but_nothing_passes_without_it() -> None:
    world = at_canary()
    world.spoil = partial
    ticks = 0
    while condition(world) is None:
        world.tick()
        ticks += 1
        assert world.status.release is not None
        assert world.status.release.weight == 5
        assert ticks * 2 <= GRACE + 10
    assert ticks * 2 >= 20, "the hold of the step, at least"


def test_a_bad_candidate_is_rolled_back_although_only_a_part_of_it_is_seen() -> None:
    def failing(counters: Counters, candidate: str) -> Counters:
        seen = partial(counters, candidate)
        seen["errors"] = {s: (v / 2 if s[2] == candidate else 0.0) for s, v in seen["requests"].items()}
        return seen

    world = at_canary()
    world.spoil = failing
    world.run(settled)
    assert world.live() == "v1"
    assert world.status.last_release is not None
    assert world.status.last_release.reason == "ErrorRateTooHigh"


def test_where_nobody_knows_how_many_are_seen_nothing_is_held() -> None:
    assert Evidence().scraped is None
    world = with_live()
    world.apply(spec("v2"))
    world.tick()
    world.run(settled)
    assert world.live() == "v2"


def test_live_pods_that_are_not_seen_hold_nothing() -> None:
    def only_candidate(counters: Counters, candidate: str) -> Counters:
        return {name: {s: v for s, v in found.items() if s[2] == candidate} for name, found in counters.items()}

    world = at_canary()
    world.spoil = only_candidate
    world.run(settled)
    assert world.live() == "v2"
