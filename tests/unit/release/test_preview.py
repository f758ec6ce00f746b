"""Blue/green: a preview that is judged, one switch, and back again."""

from __future__ import annotations

from typing import Any

from serinus.api.shown import Counts
from serinus.api.status import Outcome, Phase
from unit.release.world import World, settled, spec, with_live


def blue_green(**step: Any) -> dict[str, Any]:
    preview = {"preview": {"hostnames": ["preview.example.com"]}, "hold": "20s", **step}
    return {"release": {"strategy": "BlueGreen", "steps": [preview], "rollbackWindow": "10m"}}


def previewing(world: World) -> bool:
    return bool(world.status.release and world.status.release.phase is Phase.PREVIEWING)


def looked_at(world: World, requests: int, errors: int = 0) -> None:
    """Requests come by the preview."""
    world.unstored[world.target().name] = Counts(requests=requests, errors=errors)


def test_the_address_leads_to_the_candidate_once_it_is_ready() -> None:
    world = with_live(**blue_green())
    live = world.target().name
    assert world.plan.preview == live, "the address always answers"
    world.apply(spec("v2", **blue_green()))
    candidate = world.target().name
    world.unready.add(candidate)
    world.tick()
    world.tick()
    assert world.plan.preview == live
    world.unready.clear()
    world.run(previewing)
    world.tick()
    assert world.plan.preview == candidate
    assert world.plan.weights == {live: 100, candidate: 0}
    world.run(settled)
    assert world.live() == "v2"
    changes = [w for w, after in zip(world.weights_seen, [*world.weights_seen[1:], -1], strict=True) if w != after]
    assert changes == [0, 100, 0], "one switch"


def test_a_candidate_that_fails_in_its_preview_never_sees_a_user() -> None:
    world = with_live(**blue_green(hold="1h"))
    world.apply(spec("v2", **blue_green(hold="1h")))
    world.run(previewing)
    for _ in range(20):
        looked_at(world, 20, 10)
        world.tick()
    last = world.status.last_release
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ErrorRateTooHigh")
    assert last.requests == 0, "those of a preview are no users' requests"
    assert max(world.weights_seen) == 0


def test_what_a_preview_was_judged_on_stays_known() -> None:
    """All of it: requests that were counted at its last look, too."""
    changes = blue_green(minRequests=30)
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.run(previewing)
    while previewing(world):
        looked_at(world, 10)
        world.tick()
    note = next(each for each in world.notes if each.reason == "StepPassed")
    assert note.message.startswith("the preview passed: ")
    judged_on = note.message.removeprefix("the preview passed: ")
    assert judged_on.endswith("0 requests, error rate 0%, slow fraction 0%")
    assert world.status.release is not None
    assert world.status.release.evidence == judged_on
    world.run(settled)
    assert world.status.last_release is not None
    assert world.status.last_release.evidence == judged_on


def test_it_waits_for_requests_where_asked_to_and_for_approval() -> None:
    changes = blue_green(minRequests=30, approval=True)
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.run(previewing)
    for _ in range(30):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.reason == "TooFewRequests"
    looked_at(world, 40)
    for _ in range(3):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.reason == "WaitingForApproval"
    world.asked["approve"] = "1"
    world.run(settled)
    assert world.live() == "v2"


def test_it_is_switched_back_where_the_slo_breaks_within_the_window() -> None:
    world = with_live(**blue_green())
    world.apply(spec("v2", **blue_green()))
    world.run(settled)
    world.error_rate[world.target().name] = 0.5
    world.run(lambda w: w.live() == "v1")
    world.run(settled)
    assert world.status.last_release is not None
    assert world.status.last_release.outcome is Outcome.ROLLED_BACK


def test_without_a_route_a_preview_is_a_service() -> None:
    changes = {**blue_green(), "route": None}
    changes["release"]["steps"][0]["preview"] = {}
    world = with_live(**changes)
    world.apply(spec("v2", **changes))
    world.run(previewing)
    world.run(settled)
    assert world.live() == "v2"
