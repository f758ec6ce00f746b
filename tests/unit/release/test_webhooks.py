"""Others are asked before a release goes on, and told how it ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.status import Outcome, Phase
from serinus.api.webhooks import HookState
from serinus.release.errands import Errand, Result
from serinus.release.hooks import HookAnswer, HookTask, Said
from unit.release.world import World, settled, spec, with_live

GO, NO = HookAnswer(Said.GO), HookAnswer(Said.NO, "HTTP 403: not today")


def hooked(version: str, *when: str, policy: str = "Fail", name: str = "change-board") -> Any:
    release = spec().release.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    hook = {"name": name, "url": "https://hooks.example.com/serinus", "when": list(when), "failurePolicy": policy}
    return spec(version, release={**release, "webhooks": [hook]})


class Board:
    """A webhook that gives prepared answers, then goes on allowing."""

    def __init__(self, world: World, *answers: HookAnswer | str | None) -> None:
        self.tasks: list[HookTask] = []
        self._answers = list(answers)
        world.answer = self._answer

    def _answer(self, errand: Errand) -> Result | None:
        assert isinstance(errand.task, HookTask)
        self.tasks.append(errand.task)
        answer = self._answers.pop(0) if self._answers else GO
        if answer is None:
            return None
        return Result(problem=answer) if isinstance(answer, str) else Result(answer)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(task.body) for task in self.tasks]


def live_after(world: World, version: str) -> None:
    world.run(lambda w: w.live() == version and settled(w))


def test_asked_before_and_at_each_step_and_told_after() -> None:
    world = with_live()
    board = Board(world)
    world.apply(hooked("v2", "Before", "Step", "After", "RollBack"))
    live_after(world, "v2")
    world.tick()
    world.tick()
    asked = [(body["when"], body.get("step"), body.get("weight")) for body in board.bodies()]
    # Ahead of 5 %, ahead of 50 %, ahead of 100 %, and when it is over.
    assert asked == [("Before", 0, 0), ("Step", 0, 5), ("Step", 1, 50), ("After", None, None)]
    assert len({task.idempotency_key for task in board.tasks}) == 4
    before, _, _, after = board.bodies()
    assert (before["deployment"], before["version"], before["liveVersion"]) == ("fraud", "v2", "v1")
    assert (after["outcome"], after["version"]) == ("Promoted", "v2")
    assert world.status.notices == []


@pytest.mark.parametrize(("when", "weights"), [("Before", {0}), ("Step", {0, 5})])
def test_a_refusal_ends_the_release(when: str, weights: set[int]) -> None:
    world = with_live()
    Board(world, NO)
    world.apply(hooked("v2", when))
    world.run(settled)
    record = world.status.last_release
    assert record is not None
    assert record.reason == "WebhookRefused"
    assert record.message == f"webhook change-board ({when}): refused: HTTP 403: not today"
    assert record.outcome is (Outcome.FAILED if when == "Before" else Outcome.ROLLED_BACK)
    assert set(world.weights_seen) == weights
    assert world.live() == "v1"


def test_told_of_a_roll_back_until_it_is_heard() -> None:
    world = with_live()
    board = Board(world, "connection refused", "connection refused")
    world.apply(hooked("v2", "RollBack"))
    world.error_rate[world.target().name] = 0.3
    world.run(lambda w: settled(w) and not w.status.notices)
    assert [body["outcome"] for body in board.bodies()] == ["RolledBack"] * 3
    assert len({task.idempotency_key for task in board.tasks}) == 1, "tries of one notice have one key"


def test_nobody_hears_it_and_it_is_given_up() -> None:
    world = with_live()
    board = Board(world, *["connection refused"] * 20)
    world.apply(hooked("v2", "After"))
    live_after(world, "v2")
    world.run(lambda w: not w.status.notices)
    assert len(board.tasks) == 5
    assert world.notes[-1].reason == "WebhookNotTold"


@pytest.mark.parametrize(("policy", "live", "calls"), [("Fail", "v1", 5), ("Ignore", "v2", 5), ("Hold", "v2", 8)])
def test_no_answer(policy: str, live: str, calls: int) -> None:
    """Five tries, then what the policy says; a hold goes on trying."""
    world = with_live()
    board = Board(world, *["timed out"] * 7)
    world.apply(hooked("v2", "Before", policy=policy))
    world.run(lambda w: settled(w), limit=400)
    assert world.live() == live
    assert len(board.tasks) == calls
    assert len({task.idempotency_key for task in board.tasks}) == 1


def test_a_hold_outlasts_a_weekend_without_an_answer() -> None:
    """A try every minute: more tries than a power of two has room for, and nothing ends but by hand."""
    world = with_live()
    Board(world, *["timed out"] * 4000)
    world.apply(hooked("v2", "Before", policy="Hold"))
    world.run(lambda w: bool(w.status.release and w.status.release.webhooks))
    began, most = world.now, 0
    while (world.now - began).total_seconds() < 2 * 86_400:
        world.tick(60.0)
        assert world.status.release is not None
        most = max(most, world.status.release.webhooks[0].attempt)
    assert most > 1100
    world.asked["abort"] = "1"
    world.run(settled)
    assert world.live() == "v1"


@pytest.mark.parametrize(("policy", "live"), [("Fail", "v1"), ("Ignore", "v2"), ("Hold", "v2")])
def test_a_refusal_by_policy(policy: str, live: str) -> None:
    world = with_live()
    Board(world, NO)
    world.apply(hooked("v2", "Before", policy=policy))
    world.run(settled)
    assert world.live() == live


def test_hold_is_asked_again_when_it_wants_to_be() -> None:
    world = with_live()
    board = Board(world, *[HookAnswer(Said.HOLD, "two signatures are missing", 30.0)] * 3)
    world.apply(hooked("v2", "Step"))
    world.run(lambda w: bool(w.status.release and w.status.release.reason == "WaitingForWebhook"))
    release = world.status.release
    assert release is not None
    assert release.weight == 5
    assert world.status.phase is Phase.CANARY
    world.tick()
    assert world.status.release is not None
    assert world.status.release.message == "holding at 5%: waiting for webhook change-board: two signatures are missing"
    began = world.now
    live_after(world, "v2")
    assert (world.now - began).total_seconds() >= 80
    keys = [task.idempotency_key for task in board.tasks[:4]]
    assert len(set(keys)) == 4, "each asking has a key of its own"


def test_a_candidate_that_turns_bad_while_a_webhook_thinks_goes_back() -> None:
    world = with_live()
    Board(world, *[HookAnswer(Said.HOLD)] * 500)
    world.apply(hooked("v2", "Step"))
    world.run(lambda w: bool(w.status.release and w.status.release.reason == "WaitingForWebhook"))
    world.error_rate[world.target().name] = 0.3
    world.run(settled)
    assert world.live() == "v1"


def test_a_killed_operator_asks_the_same_again() -> None:
    world = with_live()
    board = Board(world, None, None, None)
    world.apply(hooked("v2", "Before"))
    world.run(lambda w: len(board.tasks) > 3)
    assert len({task.idempotency_key for task in board.tasks}) == 1
    assert len({task.body for task in board.tasks}) == 1, "the same errand, or it would be begun anew at every look"


def test_what_is_asked_does_not_change_while_evidence_grows() -> None:
    world = with_live()
    board = Board(world, *[None] * 10)
    world.apply(hooked("v2", "Step"))
    world.run(lambda w: len(board.tasks) == 10)
    assert len({task.body for task in board.tasks}) == 1


def test_promoted_by_hand_asks_nobody() -> None:
    world = with_live()
    board = Board(world, *[HookAnswer(Said.HOLD)] * 100)
    world.apply(hooked("v2", "Before", "Step"))
    world.run(lambda w: bool(board.tasks))
    world.asked["promote"] = "now"
    live_after(world, "v2")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([GO, NO, HookAnswer(Said.HOLD), "gone", None]), max_size=15),
    st.sampled_from(["Fail", "Ignore", "Hold"]),
)
def test_whatever_it_says_no_weight_before_it_allowed(answers: list[HookAnswer | str | None], policy: str) -> None:
    world = with_live()
    Board(world, *answers)
    world.apply(hooked("v2", "Before", policy=policy))
    candidate = world.target().name
    for _ in range(1500):
        world.tick()
        release = world.status.release
        states = {call.state for call in release.webhooks} if release else set()
        if world.route.get(candidate, 0) and release is not None:
            assert states <= {HookState.ALLOWED, HookState.IGNORED}
        if settled(world):
            break
    else:
        raise AssertionError("no end")
