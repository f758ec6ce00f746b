"""Messages to people: each thing once, across restarts, bounded, and never in the way of a release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.notifications import Notification
from serinus.api.status import Message
from serinus.release import outbox
from serinus.release.errands import Errand, Result
from serinus.release.machine import decide
from serinus.release.outbox import Delivery, Receipt
from serinus.release.retries import MESSAGE
from unit.release.world import World, releasing, settled, spec, stored, with_live

TEAM = {"type": "Slack", "receiver": "team"}
TAKEN = Receipt()
HOOK = {"type": "Webhook", "url": "http://hook/"}


class Told(World):
    """A world with receivers, each of which answers with `receipt`; None: not at all."""

    def __init__(self, world: World, receipt: Receipt | None = TAKEN) -> None:
        super().__init__(**{name: getattr(world, name) for name in World.__dataclass_fields__})
        self.receipt = receipt
        self.delivered: list[Message] = []
        self.every: tuple[Notification, ...] = ()
        self.answer = self._do

    @property
    def attempts(self) -> list[str]:
        return self.started

    def given(self) -> Any:
        return replace(super().given(), notifications=self.every)

    def _do(self, errand: Errand) -> Result | None:
        assert isinstance(errand.task, Delivery)
        if self.receipt is None:
            return None
        if not self.receipt.problem:
            self.delivered.append(errand.task.message)
        return Result(self.receipt)


def begun(notifications: list[dict[str, Any]], receipt: Receipt | None = TAKEN, **release: Any) -> Told:
    """v1 is live; whoever is listed is told of what comes."""
    changes = releasing(**release)
    changes["release"]["notifications"] = notifications
    world = Told(with_live(**changes), receipt)
    # What was told of v1 is of no interest.
    world.status = world.status.model_copy(update={"outbox": [], "messages": 0})
    world.apply(spec("v2", **changes))
    return world


def test_a_good_release_is_told_from_start_to_end() -> None:
    world = begun([TEAM])
    world.tick()
    world.run(settled)
    world.tick()
    assert [each.event for each in world.delivered] == ["Started", "Step", "Step", "Step", "Promoted"]
    assert [each.weight for each in world.delivered][:3] == [0, 5, 50]
    assert [each.message.partition(":")[0] for each in world.delivered][2:4] == ["5% passed", "50% passed"]
    assert {each.version for each in world.delivered} == {"v2"}
    assert len({each.id for each in world.delivered}) == 5
    assert world.status.outbox == []


def test_a_bad_one_is_told_with_the_reason_and_only_to_those_who_asked() -> None:
    world = begun([{**TEAM, "events": ["RolledBack"]}, HOOK])
    world.error_rate[world.target().name] = 0.5
    world.tick()
    world.run(settled)
    world.tick()
    by_receiver = {
        name: [each for each in world.delivered if each.to == name] for name in {e.to for e in world.delivered}
    }
    team = by_receiver[outbox.address(Notification.model_validate(TEAM))]
    assert [(each.event, each.reason) for each in team] == [("RolledBack", "ErrorRateTooHigh")]
    assert "requests failed" in team[0].message
    assert len(by_receiver) == 2


def test_the_operator_tells_of_every_model_deployment() -> None:
    world = Told(with_live())
    world.every = (Notification.model_validate(TEAM),)
    world.apply(spec("v2"))
    world.tick()
    world.run(settled)
    world.tick()
    assert world.delivered[-1].event == "Promoted"


def test_nobody_is_told_and_nothing_is_kept_without_receivers() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.tick()
    world.run(settled)
    assert world.status.outbox == []
    assert world.status.messages == 0


def test_what_comes_and_goes_in_one_step_is_told_once() -> None:
    world = begun([{**TEAM, "events": ["EvidenceMissing", "ApprovalNeeded"]}])
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    for _ in range(7):
        world.prometheus_down = not world.prometheus_down
        world.tick()
    assert [each.event for each in world.delivered] == ["EvidenceMissing"]


def test_a_dead_receiver_is_given_up_and_holds_nothing() -> None:
    world = begun([{**TEAM, "events": ["Started"]}], Receipt("receiver team answered 500"))
    world.tick()
    world.run(settled)
    assert world.live() == "v2"
    for _ in range(600):
        world.tick()
    assert world.attempts == [f"notify/1/{number}" for number in range(MESSAGE.most)]
    assert world.status.outbox == []
    failed = [note for note in world.notes if note.reason == "NotificationFailed"]
    assert len(failed) == 1
    assert "receiver team answered 500" in failed[0].message


def test_an_answer_that_will_not_change_is_not_asked_for_again() -> None:
    world = begun([{**TEAM, "events": ["Started"]}], Receipt("receiver team answered 404", final=True))
    for _ in range(5):
        world.tick()
    assert len(world.attempts) == 1
    assert world.status.outbox == []


def test_a_pause_grows_and_the_decision_asks_to_be_woken() -> None:
    world = begun([{**TEAM, "events": ["Started"]}], Receipt("no"))
    world.run(settled)
    pauses = []
    while world.status.outbox:
        before = len(world.attempts)
        decision = world.tick()
        if world.status.outbox and world.status.outbox[0].next_at and len(world.attempts) == before:
            assert decision.requeue_after is not None
            pauses.append((world.status.outbox[0].next_at - world.now).total_seconds())
    assert max(pauses) > 100
    assert max(pauses) <= MESSAGE.pause(4)


def test_a_receiver_that_is_gone_from_the_spec_is_not_waited_for() -> None:
    world = begun([TEAM], None)
    world.tick()
    assert world.status.outbox
    world.apply(spec("v2"))
    world.tick()
    assert world.status.outbox == []


def test_what_waits_is_bounded() -> None:
    world = begun([TEAM, HOOK], None)
    for version in range(3, 30):
        changes = releasing()
        changes["release"]["notifications"] = [TEAM, HOOK]
        world.tick()
        world.apply(spec(f"v{version}", **changes))
    assert len(world.status.outbox) <= outbox.MOST
    assert any(note.reason == "NotificationFailed" for note in world.notes)


@given(killed=st.lists(st.booleans(), min_size=40, max_size=40), answers=st.lists(st.booleans(), max_size=12))
@settings(deadline=None, max_examples=25)
def test_killed_at_any_moment_each_is_delivered_and_no_id_twice(killed: list[bool], answers: list[bool]) -> None:
    """Killed before a decision is stored: nothing was asked for. Killed after: the same attempt, the same id, again."""
    world = begun([TEAM])
    for dies in killed:
        if dies:
            world.decide(store=False)
            world.results = {}
        world.receipt = Receipt("busy") if answers and answers.pop() else Receipt()
        world.tick()
    world.receipt = Receipt()
    world.run(lambda w: settled(w) and not w.status.outbox, limit=2000)
    events = {each.id: each.event for each in world.delivered}
    assert sorted(events) == list(range(1, len(events) + 1)), "none is lost"
    assert sorted(events.values()) == sorted(["Started", "Step", "Step", "Step", "Promoted"]), "each thing has one id"


def test_the_same_past_leads_to_the_same_messages() -> None:
    world = begun([TEAM])
    status = world.status
    for _ in range(30):
        given_ = world.given()
        assert stored(decide(replace(given_, status=status)).status) == stored(world.tick().status)
        status = world.status
