"""What speaks against a candidate beyond the SLO: comparison, thresholds, own PromQL; and what silence leads to."""

from __future__ import annotations

from typing import Any

import pytest

from serinus.api.shown import MetricStatus
from serinus.api.status import Outcome, Phase
from serinus.release.observed import Rates
from unit.release.world import World, releasing, settled, spec, with_live

QUERY = "sum by (model_namespace, model_deployment, revision) (rate(declined_total[5m]))"
LAX = {"slo": {"p99": "50ms", "errorRate": "20%"}}


def at(world: World, weight: int) -> None:
    world.run(lambda w: w.status.release is not None and w.status.release.weight == weight)


def begin(changes: dict[str, Any], weight: int = 5) -> tuple[World, str]:
    """A release of v2 at `weight` percent, and the candidate's name."""
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    at(world, weight)
    return world, world.target().name


def condition(world: World) -> str | None:
    return next((c.reason for c in world.status.conditions if c.type == "EvidenceMissing"), None)


def shown(world: World, name: str) -> MetricStatus:
    assert world.status.release is not None
    return next(metric for metric in world.status.release.metrics if metric.name == name)


def ended(world: World) -> tuple[Outcome, str]:
    world.run(settled)
    assert world.status.last_release is not None
    return world.status.last_release.outcome, world.status.last_release.reason


@pytest.mark.parametrize(
    ("analysis", "outcome"),
    [
        ({"worseThanLive": {"errorRate": "1%"}}, (Outcome.ROLLED_BACK, "MoreErrorsThanLive")),
        ({}, (Outcome.PROMOTED, "Promoted")),
    ],
)
def test_worse_than_live_inside_the_slo(analysis: dict[str, Any], outcome: tuple[Outcome, str]) -> None:
    changes = {**LAX, **releasing(**analysis)}
    world, candidate = begin(changes)
    world.pods = 20
    world.error_rate[candidate] = 0.1
    assert ended(world) == outcome


def test_both_as_bad_is_not_worse_than_live() -> None:
    changes = {**LAX, **releasing(worseThanLive={"errorRate": "1%"})}
    world, candidate = begin(changes)
    world.pods = 20
    world.error_rate = {candidate: 0.1, world.status.live.revision: 0.1}  # type: ignore[union-attr]
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


def test_bad_measurements_in_a_row_roll_back() -> None:
    tail = {"name": "tail", "figure": "P99", "unit": "s", "max": 0.2, "interval": "4s", "failureLimit": 3}
    world, candidate = begin(releasing(metrics=[tail]))
    world.rates[candidate] = Rates(p99=0.3)
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.ROLLING_BACK)
    metric = shown(world, "tail")
    assert [m.value for m in metric.measurements] == [0.3, 0.3, 0.3]
    assert ended(world) == (Outcome.ROLLED_BACK, "MetricOutOfRange")
    assert "tail is 0.3 s, allowed is at most 0.2 s; 3 bad in a row" in world.status.last_release.message  # type: ignore[union-attr]


def test_a_good_measurement_starts_the_count_anew() -> None:
    tail = {"name": "tail", "figure": "P99", "max": 0.2, "interval": "2s", "failureLimit": 2}
    world, candidate = begin(releasing(metrics=[tail]))
    for value in (0.3, 0.1, 0.3, 0.1, 0.3, 0.1):
        world.rates[candidate] = Rates(p99=value)
        world.tick()
        assert world.status.release is not None
        assert world.status.release.phase is Phase.CANARY
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


def test_own_promql_decides() -> None:
    declined = {"name": "declined", "query": QUERY, "unit": "1/s", "max": 5, "interval": "2s"}
    world, candidate = begin(releasing(metrics=[declined]))
    world.own[QUERY] = {candidate: 4.0}
    world.tick()
    world.own[QUERY] = {candidate: 9.0}
    assert ended(world) == (Outcome.ROLLED_BACK, "MetricOutOfRange")


def test_dry_run_is_shown_and_decides_nothing() -> None:
    declined = {"name": "declined", "query": QUERY, "max": 5, "interval": "2s", "dryRun": True}
    world, candidate = begin(releasing(metrics=[declined]))
    world.own[QUERY] = {candidate: 9.0}
    for _ in range(15):
        world.tick()
    metric = shown(world, "declined")
    assert len(metric.measurements) == 10
    assert metric.bad_in_a_row > 10
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


@pytest.mark.parametrize("answer", [{}, {"another": 1.0}, "refused: parse error", {"CANDIDATE": float("nan")}])
def test_no_value_holds_and_says_so(answer: dict[str, float] | str) -> None:
    declined = {"name": "declined", "query": QUERY, "max": 5, "interval": "2s"}
    world, candidate = begin(releasing(metrics=[declined]))
    if isinstance(answer, dict):
        answer = {candidate if name == "CANDIDATE" else name: value for name, value in answer.items()}
    world.own[QUERY] = answer
    for _ in range(60):
        world.tick()
        assert world.status.release is not None
        assert world.status.release.weight == 5
    assert world.status.release.reason == "MetricMissing"
    assert condition(world) == "MetricMissing"
    world.own[QUERY] = {candidate: 1.0}
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


def test_old_counts_are_not_evidence() -> None:
    """Enough requests were answered, then no counter moves any more: the step holds."""
    world, _ = begin({})
    for _ in range(5):
        world.tick()
    world.rate = 0
    for _ in range(100):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.weight in (5, 50)
    assert world.status.release.reason in ("EvidenceStale", "NoRequests")
    world.rate = 200.0
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


@pytest.mark.parametrize("fault", ["prometheus", "silence"])
@pytest.mark.parametrize("then", ["Hold", "RollBack"])
def test_without_a_verdict_the_user_chooses(fault: str, then: str) -> None:
    world, _ = begin(releasing(inconclusive={"after": "1m", "then": then}))
    if fault == "prometheus":
        world.prometheus_down = True
    else:
        world.rate = 0
    for _ in range(90):
        world.tick()
    if then == "RollBack":
        assert world.status.last_release is not None
        assert (world.status.last_release.outcome, world.status.last_release.reason) == (
            Outcome.ROLLED_BACK,
            "Inconclusive",
        )
        return
    assert world.status.release is not None
    assert world.status.release.weight == 5
    assert condition(world) is not None
    assert [note.reason for note in world.notes].count("Inconclusive") == 1
    world.prometheus_down, world.rate = False, 200.0
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


def test_too_few_requests_are_no_condition_at_first() -> None:
    world, _ = begin({})
    world.rate = 0
    for _ in range(20):
        world.tick()
    assert condition(world) is None


ORDERS = {"name": "orders", "query": QUERY, "min": 1, "interval": "2s", "failureLimit": 3}


def test_a_candidate_without_users_is_not_measured() -> None:
    """It has no orders because it has no users: releases were frozen while its pods started."""
    changes = releasing(metrics=[ORDERS])
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.unready.add(world.target().name)
    world.tick()
    world.frozen = "an incident"
    world.unready.clear()
    world.own[QUERY] = {world.target().name: 0.0}
    for _ in range(30):
        world.tick()
    assert world.status.release is not None, world.status.last_release
    assert (world.status.release.weight, world.status.release.reason) == (0, "Frozen")
    world.frozen = None
    world.own[QUERY] = {world.target().name: 5.0}
    assert ended(world) == (Outcome.PROMOTED, "Promoted")


def test_a_metric_is_measured_until_all_users_have_the_candidate() -> None:
    """The last step has passed, and the promotion waits for a pod, for as long as progressDeadline."""
    changes = releasing(metrics=[ORDERS])
    world, candidate = begin(changes, 5)
    world.own[QUERY] = {candidate: 5.0}
    at(world, 50)
    world.lost[candidate] = {"pod-0": world.now}
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.PROMOTING)
    world.own[QUERY] = {candidate: 0.0}
    for _ in range(8):
        world.tick()
    assert ended(world) == (Outcome.ROLLED_BACK, "MetricOutOfRange")


@pytest.mark.parametrize("kind", ["weight", "preview", "shadow"])
def test_silence_before_a_pause_does_not_count_after_it(kind: str) -> None:
    step: dict[str, Any] = {
        "weight": {"weight": 50},
        "preview": {"preview": {}, "minRequests": 10**6},
        "shadow": {"shadow": {}},
    }[kind]
    analysis = {"inconclusive": {"after": "5m", "then": "RollBack"}}
    changes = {"release": {"steps": [step], "analysis": analysis}}
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.tick()
    world.tick()
    world.prometheus_down = True
    for _ in range(5):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.reason == "EvidenceMissing"
    world.asked["pause"] = "true"
    for _ in range(60):
        world.tick(60.0)
    del world.asked["pause"]
    world.tick()
    world.tick()
    assert world.status.release is not None, world.status.last_release
    assert world.status.release.reason == "EvidenceMissing"


def test_a_shadow_without_a_verdict_fails_a_candidate_that_no_user_saw() -> None:
    changes = {
        "release": {"steps": [{"shadow": {}}], "analysis": {"inconclusive": {"after": "1m", "then": "RollBack"}}}
    }
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.tick()
    world.prometheus_down = True
    assert ended(world) == (Outcome.FAILED, "Inconclusive")
    assert "RollingBack" not in [note.reason for note in world.notes], "nobody is told of a roll-back of nothing"
