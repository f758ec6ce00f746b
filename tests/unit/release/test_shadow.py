"""Shadow: mirrored first, judged by pairs, and no user ever on a candidate that disagrees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.release import Release
from serinus.api.status import Outcome, Phase, ReleaseRecord
from serinus.api.steps import StepKind
from unit.release.world import World, settled, spec, stored, with_live

SHADOW: dict[str, Any] = {"percent": 10, "duration": "60s", "minPairs": 500}
WEIGHT = {"weight": 50, "hold": "10s", "minRequests": 50}


def release(*more: dict[str, Any], **shadow: Any) -> dict[str, Any]:
    return {"steps": [{"shadow": {**SHADOW, **shadow}}, *(more or (WEIGHT,))], "rollbackWindow": "10m"}


def shadowing(world: World) -> bool:
    found = world.status.release
    return (
        found is not None and found.phase is Phase.SHADOWING and found.shadow is not None and bool(found.shadow.since)
    )


def shadowed(**shadow: Any) -> World:
    """A world with v1 live and v2 in its shadow."""
    world = with_live("v1", release=release(**shadow))
    world.apply(spec("v2", release=release(**shadow)))
    world.mirrors.clear()
    world.run(shadowing)
    return world


def ended(world: World) -> ReleaseRecord:
    world.run(settled)
    assert world.status.last_release is not None
    return world.status.last_release


def test_an_agreeing_candidate_passes_to_the_weights() -> None:
    world = shadowed()
    assert world.status.weight == "0%"
    began = world.now
    world.run(lambda world: world.status.release.phase is Phase.CANARY)
    assert (world.now - began).total_seconds() >= 60
    record = ended(world)
    assert (record.outcome, world.live()) == (Outcome.PROMOTED, "v2")
    assert record.shadow is not None
    assert record.shadow.pairs >= 1000
    assert (record.shadow.disagreement, record.shadow.psi) == ("0%", 0.01)
    assert record.shadow.message is not None
    assert record.shadow.message.startswith(f"{record.shadow.pairs} pairs, 0% disagree")
    assert "StepPassed" in [note.reason for note in world.notes]


def test_mirrored_requests_are_no_users_requests() -> None:
    world = shadowed()
    for _ in range(20):
        world.tick()
    found = world.status.release
    assert found is not None
    assert found.shadow is not None
    assert found.shadow.pairs > 500
    assert (found.served, found.candidate.requests, found.tests) == (0, 0, {})


def test_a_disagreeing_candidate_fails_before_any_user_saw_it() -> None:
    world = shadowed(maxDisagreement="1%")
    world.disagreement = 0.05
    began = world.now
    record = ended(world)
    assert (record.outcome, record.reason, world.live()) == (Outcome.FAILED, "Disagreement", "v1")
    assert (world.now - began).total_seconds() < 60, "it waits for the end although it is sure"
    assert "allowed are 1% by shadow.maxDisagreement" in record.message
    assert "no user saw its answers" in record.message
    assert (max(world.weights_seen), record.requests, world.mirrors[-1]) == (0, 0, 0)
    assert world.status.phase is Phase.FAILED


def test_a_candidate_that_fails_where_live_does_not_fails() -> None:
    world = shadowed()
    world.shadow_errors = 0.1
    record = ended(world)
    assert (record.outcome, record.reason) == (Outcome.FAILED, "ErrorsInShadow")
    assert "pairs failed" in record.message


@pytest.mark.parametrize(
    ("figure", "limit", "reason"),
    [
        ("psi", {"maxPsi": 0.2}, "ScoresShifted"),
        ("ks", {"maxKs": 0.2}, "ScoresShifted"),
        ("input_psi", {"maxInputPsi": 0.2}, "InputsDiffer"),
        ("input_ks", {"maxInputKs": 0.2}, "InputsDiffer"),
        ("latency_ratio", {"maxLatencyRatio": 2}, "SlowerInShadow"),
    ],
)
def test_a_figure_above_its_limit_fails_once_there_are_pairs_enough(
    figure: str, limit: dict[str, float], reason: str
) -> None:
    world = shadowed(minPairs=400, **limit)
    world.figures[figure] = 2.5
    world.run(lambda world: world.status.release is None)
    record = world.status.last_release
    assert record is not None
    assert (record.outcome, record.reason) == (Outcome.FAILED, reason)
    assert "2.5, allowed are" in record.message
    assert record.shadow is not None
    assert 400 <= record.shadow.pairs <= 600


def test_one_bad_look_at_a_figure_does_not_condemn() -> None:
    world = shadowed(minPairs=40)
    for value in (0.9, 0.9, 0.01) * 10:
        world.figures["psi"] = value
        world.tick()
    assert ended(world).outcome is Outcome.PROMOTED


def test_one_scrape_that_is_looked_at_often_is_one_look() -> None:
    """Decisions come with every tick and every event, scrapes every fifteen seconds or so."""
    world = shadowed(maxPsi=0.25, duration="1h", minPairs=10)
    for _ in range(5):
        world.tick()
    world.figures["psi"] = 2.5
    world.rate = 0.0
    for _ in range(10):
        world.tick()
    assert world.status.release is not None, world.status.last_release
    world.figures["psi"] = 0.01
    world.rate = 200.0
    for _ in range(10):
        world.tick()
    assert world.status.release is not None


def test_gates_that_are_not_asked_for_do_not_close() -> None:
    world = shadowed(maxDisagreement="100%", maxPsi=100)
    world.disagreement, world.figures = 1.0, {"psi": 8.0, "ks": 1.0, "latency_ratio": 9.0}
    assert ended(world).outcome is Outcome.PROMOTED


def test_too_few_pairs_hold_after_the_time_is_over() -> None:
    world = shadowed(minPairs=100_000)
    for _ in range(60):
        world.tick()
    assert world.status.release is not None
    assert (world.status.release.phase, world.status.release.reason) == (Phase.SHADOWING, "TooFewPairs")
    assert "100000 pairs are needed" in (world.status.release.message or "")


def test_silence_is_no_agreement() -> None:
    world = with_live("v1", release=release())
    world.joiner_down = True
    world.apply(spec("v2", release=release()))
    world.run(shadowing)
    for _ in range(60):
        world.tick()
    found = world.status.release
    assert found is not None
    assert (found.phase, found.reason) == (Phase.SHADOWING, "NoPairs")
    assert "the joiner has told nothing yet" in (found.message or "")
    world.joiner_down = False
    assert ended(world).outcome is Outcome.PROMOTED


def test_prometheus_away_is_no_agreement() -> None:
    world = shadowed()
    world.prometheus_down = True
    for _ in range(60):
        world.tick()
    assert world.status.release is not None
    assert (world.status.release.phase, world.status.release.reason) == (Phase.SHADOWING, "EvidenceMissing")


def test_pairs_that_stopped_coming_are_old_news() -> None:
    world = shadowed(duration="120s")
    for _ in range(20):
        world.tick()
    world.rate = 0.0
    for _ in range(60):
        world.tick()
    assert world.status.release is not None
    assert (world.status.release.phase, world.status.release.reason) == (Phase.SHADOWING, "EvidenceStale")


def test_a_share_at_the_limit_is_held_and_neither_passes_nor_fails() -> None:
    world = shadowed(maxDisagreement="5%")
    world.disagreement = 0.06
    world.rate = 500.0
    for _ in range(45):
        world.tick()
    found = world.status.release
    assert found is not None
    assert (found.phase, found.reason) == (Phase.SHADOWING, "Undecided")


def test_the_shadow_begins_when_the_gateway_serves_the_mirror() -> None:
    world = with_live("v1", release=release())
    world.apply(spec("v2", release=release()))
    world.run(lambda world: world.status.release is not None and world.status.release.phase is Phase.SHADOWING)
    world.gateway_down = True
    for _ in range(10):
        world.tick()
    found = world.status.release
    assert found is not None
    assert found.shadow is not None
    assert (found.reason, found.shadow.since, found.shadow.pairs) == ("WaitingForGateway", None, 0)
    world.gateway_down = False
    world.run(shadowing)


def test_a_gateway_that_cannot_mirror_ends_the_release_and_not_the_route() -> None:
    world = with_live("v1", release=release())
    world.mirror_refused = True
    world.apply(spec("v2", release=release()))
    record = ended(world)
    assert (record.outcome, record.reason) == (Outcome.FAILED, "MirrorRefused")
    assert "percent is unknown here" in record.message
    assert (record.finished_at - record.started_at).total_seconds() < 30
    assert world.plan.mirror is None


def test_the_first_version_has_no_shadow() -> None:
    world = World(spec("v1", release=release()))
    world.run(settled)
    assert (world.live(), set(world.mirrors)) == ("v1", {0})


@pytest.mark.parametrize("verb", ["abort", "promote"])
def test_people_end_a_shadow(verb: str) -> None:
    world = shadowed()
    world.asked[verb] = "now"
    world.tick()
    assert world.plan.mirror is None
    record = ended(world)
    assert record.outcome is (Outcome.FAILED if verb == "abort" else Outcome.PROMOTED)


def test_a_paused_shadow_goes_on_and_does_not_end() -> None:
    world = shadowed()
    world.asked["pause"] = "true"
    for _ in range(60):
        world.tick()
    assert world.status.release is not None
    assert (world.status.release.phase, world.status.release.reason) == (Phase.SHADOWING, "Paused")
    world.disagreement = 0.5
    assert ended(world).reason == "Disagreement"


def test_a_new_spec_takes_the_mirror_away_with_the_candidate() -> None:
    world = shadowed()
    world.apply(spec("v3", release=release()))
    world.tick()
    world.tick()
    assert world.plan.mirror is None or world.plan.mirror.candidate == world.target().name
    assert world.status.history[0].outcome is Outcome.SUPERSEDED


def test_candidate_pods_that_die_in_the_shadow_end_it() -> None:
    world = shadowed()
    from serinus.release.observed import Failure

    assert world.status.release is not None
    world.failures[world.status.release.revision] = Failure("CrashLoop", "exit code 1")
    assert ended(world).reason == "CrashLoop"


@settings(deadline=None, max_examples=25)
@given(st.sets(st.integers(0, 60), max_size=12), st.floats(0, 0.2))
def test_killed_at_any_moment_it_ends_the_same(kills: set[int], disagreement: float) -> None:
    """A decision that is not stored is decided again from the same evidence."""
    plain, killed = shadowed(), shadowed()
    for world, moments in ((plain, set()), (killed, kills)):
        world.disagreement = disagreement
        for turn in range(120):
            if turn in moments:
                world.decide(store=False)
                world.status = stored(world.status)
            world.tick()
    first, second = plain.status.last_release, killed.status.last_release
    assert first is not None
    assert second is not None
    assert (first.outcome, first.reason) == (second.outcome, second.reason)
    assert killed.live() == plain.live()
    seen = zip(killed.mirrors, killed.weights_seen[-len(killed.mirrors) :], strict=True)
    assert not any(mirror and weight for mirror, weight in seen), "mirrored while users were on it"


def test_what_strategies_and_short_forms_stand_for() -> None:
    def kinds(**fields: Any) -> list[StepKind]:
        return [step.kind for step in Release.model_validate(fields).plan_steps()]

    shadow, weight = StepKind.SHADOW, StepKind.WEIGHT
    assert kinds() == [weight] * 3
    assert kinds(strategy="Shadow") == [shadow, weight, weight, weight]
    assert kinds(shadow={}) == [shadow, weight, weight, weight]
    assert kinds(strategy="BlueGreen", shadow={"percent": 100}) == [shadow]
    assert kinds(strategy="Shadow", steps=[{"weight": 5}, {"shadow": {}}]) == [weight, shadow]
    assert Release.model_validate({"shadow": {"percent": 100}}).plan_steps()[0].load == 100
