"""What a step waits for once its evidence is there is the same for every kind: people, the hour, a freeze, webhooks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from serinus.api.status import Outcome
from serinus.api.steps import StepKind
from serinus.release.errands import Errand, Result
from serinus.release.hooks import HookAnswer, HookTask, Said
from serinus.release.smoke import SmokeReport
from serinus.release.steps import PHASE_OF
from unit.release.test_composed import EXPERIMENT, Watched
from unit.release.world import World, settled, spec, with_live

STEP: dict[StepKind, dict[str, Any]] = {
    StepKind.SMOKE_TEST: {"smokeTest": {"requests": 5}},
    StepKind.SHADOW: {"shadow": {"percent": 20, "duration": "6s", "minPairs": 20}},
    StepKind.PREVIEW: {"preview": {}, "hold": "4s"},
    StepKind.WEIGHT: {"weight": 10, "hold": "4s", "minRequests": 20},
    StepKind.EXPERIMENT: {"experiment": EXPERIMENT},
}
CLOSED = [{"days": ["Mon"], "start": "09:00", "end": "12:00"}]
"""Everything here is on a Saturday."""
HOOK = {"name": "board", "url": "https://hooks.example.com/serinus", "when": ["Step"]}


class Gated:
    """A release whose first step, of `kind`, has something to wait for. What follows would not wait by itself."""

    def __init__(self, kind: StepKind, gate: str) -> None:
        self.kind, self.gate = kind, gate
        # What an experiment recommends is worth a reason of its own.
        own = kind is StepKind.EXPERIMENT and gate == "WaitingForApproval"
        self.reason = "ExperimentEnded" if own else gate
        self.tested: Result | None = None
        self.allowed = False
        self.hooks: list[dict[str, Any]] = []
        after = [{"preview": {}, "hold": "2s"}] if kind is StepKind.SMOKE_TEST else []
        release: dict[str, Any] = {
            "steps": [{**STEP[kind], "approval": gate == "WaitingForApproval"}, *after],
            "webhooks": [HOOK] if gate == "WaitingForWebhook" else [],
        }
        self.release = release
        calm = with_live(release={"steps": [{"weight": 50}]})
        self.world = Watched(**{each.name: getattr(calm, each.name) for each in dataclasses.fields(World)})
        self.world.answer = self._answer
        self.world.apply(spec("v2", release=release))

    def _answer(self, errand: Errand) -> Result | None:
        if not isinstance(errand.task, HookTask):
            return self.tested
        self.hooks.append(json.loads(errand.task.body))
        return Result(HookAnswer(Said.GO if self.allowed else Said.HOLD, again=2.0))

    def close(self) -> None:
        """Once the step is under way, with the share of the users that it gives."""
        self.world.run(lambda w: self._here() and w.status.release.weight == self._share())
        if self.gate == "Frozen":
            self.world.frozen = "Black Friday"
        if self.gate == "OutsideWindow":
            self.world.apply(spec("v2", release={**self.release, "windows": CLOSED}))
        self.tested = Result(SmokeReport("generated", 5))

    def open(self) -> None:
        self.world.frozen, self.allowed = None, True
        self.world.asked["approve"] = "yes"
        if self.gate == "OutsideWindow":
            self.world.apply(spec("v2", release=self.release))

    def waits(self) -> bool:
        release = self.world.status.release
        return release is not None and release.reason == self.reason

    def _here(self) -> bool:
        release = self.world.status.release
        return release is not None and release.phase is PHASE_OF[self.kind] and release.step == 0

    def _share(self) -> int:
        return self.world.spec.release.plan_steps()[0].share


GATES = ("WaitingForApproval", "OutsideWindow", "Frozen", "WaitingForWebhook")


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", StepKind)
def test_every_kind_of_step_waits_for_the_same(kind: StepKind, gate: str) -> None:
    gated = Gated(kind, gate)
    gated.close()
    world = gated.world
    world.run(lambda _: gated.waits())
    for _ in range(20):
        world.tick()
        release = world.status.release
        assert release is not None
        assert (release.phase, release.step, release.reason) == (PHASE_OF[kind], 0, gated.reason)
    gated.open()
    world.run(lambda w: w.live() == "v2" and settled(w))


@pytest.mark.parametrize("kind", StepKind)
def test_a_webhook_is_told_which_step_has_passed_and_on_what(kind: StepKind) -> None:
    gated = Gated(kind, "WaitingForWebhook")
    gated.allowed = True
    gated.close()
    gated.world.run(lambda w: w.live() == "v2" and settled(w))
    first, *others = gated.hooks
    assert (first["when"], first["step"], first["stepKind"]) == ("Step", 0, kind)
    assert first["evidence"]
    assert [each["stepKind"] for each in others] == [StepKind.PREVIEW for _ in others]
    assert len(gated.hooks) == len(gated.world.spec.release.plan_steps()), "each step asks once"


@pytest.mark.parametrize("kind", StepKind)
def test_a_refusal_after_any_kind_of_step_ends_the_release(kind: StepKind) -> None:
    gated = Gated(kind, "WaitingForWebhook")
    share = gated._share()
    said: Callable[[Errand], Result | None] = gated._answer

    def refusing(errand: Errand) -> Result | None:
        return Result(HookAnswer(Said.NO, "HTTP 403")) if isinstance(errand.task, HookTask) else said(errand)

    gated.world.answer = refusing
    gated.close()
    gated.world.run(settled)
    record = gated.world.status.last_release
    assert record is not None
    assert record.reason == "WebhookRefused"
    assert record.outcome is (Outcome.ROLLED_BACK if share else Outcome.FAILED)
    assert gated.world.live() == "v1"


@pytest.mark.parametrize("gate", ["Frozen", "WaitingForWebhook"])
def test_the_first_version_waits_after_its_smoke_test_as_well(gate: str) -> None:
    world = World(spec("v1", release={"smokeTest": {}, "webhooks": [HOOK] if gate != "Frozen" else []}))
    go = False

    def answer(errand: Errand) -> Result:
        if isinstance(errand.task, HookTask):
            return Result(HookAnswer(Said.GO if go else Said.HOLD, again=2.0))
        world.frozen = "moving house" if gate == "Frozen" else None
        return Result(SmokeReport("generated", 20))

    world.answer = answer
    world.run(lambda w: w.status.release is not None and w.status.release.reason == gate)
    world.tick()
    assert world.live() is None
    go, world.frozen = True, None
    world.run(lambda w: w.live() == "v1")


@pytest.mark.parametrize("kind", [StepKind.WEIGHT, StepKind.SHADOW])
def test_silence_of_long_ago_does_not_count_after_a_wait(kind: StepKind) -> None:
    """Evidence was missing, came back, the step waits for approval for an hour: a blip then is the first of its own."""
    analysis = {"inconclusive": {"after": "5m", "then": "RollBack"}}
    calm = with_live(release={"steps": [{"weight": 50}]})
    world = Watched(**{each.name: getattr(calm, each.name) for each in dataclasses.fields(World)})
    world.apply(spec("v2", release={"steps": [{**STEP[kind], "approval": True}], "analysis": analysis}))
    world.run(lambda w: w.status.release is not None and w.status.release.phase is PHASE_OF[kind])
    world.tick()
    world.prometheus_down = True
    for _ in range(5):
        world.tick()
    world.prometheus_down = False
    world.run(lambda w: w.status.release is not None and w.status.release.reason == "WaitingForApproval")
    for _ in range(60):
        world.tick(60.0)
    world.prometheus_down = True
    world.tick()
    world.tick()
    assert world.status.release is not None
    assert world.status.release.reason == "EvidenceMissing"
