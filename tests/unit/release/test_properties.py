"""The state machine under arbitrary worlds: what must never happen, never happens."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serinus.api.status import Phase
from serinus.release.observed import Failure
from unit.release.world import World, settled, spec, with_live

VERSIONS = ("v1", "v2", "v3", "v4")


class Releases(RuleBasedStateMachine):
    """Users apply versions, pods fail and recover, Prometheus and the gateway come and go, the operator is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = World(spec("v1"))
        self.before = 0

    @initialize(fresh=st.booleans())
    def begin(self, fresh: bool) -> None:
        self.world = World(spec("v1")) if fresh else with_live()

    @rule(version=st.sampled_from(VERSIONS))
    def apply(self, version: str) -> None:
        self.world.apply(spec(version))

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0, 30.0, 700.0]))
    def tick(self, seconds: float) -> None:
        world = self.world
        was = world.status
        decision = world.decide()
        world.obey(decision)
        world.serve(seconds)
        self.check_step(was)

    def check_step(self, was: object) -> None:
        world = self.world
        release = world.status.release
        steps = [step.weight for step in world.spec.release.plan_steps()]
        if release is None:
            return
        if release.phase is Phase.CANARY:
            allowed = {steps[release.step], steps[release.step - 1] if release.step else 0}
            assert release.weight in allowed, "a weight outside its step"
        if release.phase is Phase.STARTING:
            assert release.weight == 0

    @rule()
    def killed_before_writing(self) -> None:
        status = self.world.status
        first = self.world.decide(store=False)
        assert self.world.status == status
        again = self.world.decide(store=False)
        assert first == again, "the same input must lead to the same decision"

    @rule()
    def killed_after_status(self) -> None:
        """The status is stored, nothing is applied; the next pass must apply what the status says."""
        self.world.decide()

    @rule(version=st.sampled_from(VERSIONS), reason=st.sampled_from(["CrashLoop", "DigestMismatch"]))
    def pods_fail(self, version: str, reason: str) -> None:
        world = World(spec(version))
        self.world.failures[world.target().name] = Failure(reason, "broken")

    @rule(version=st.sampled_from(VERSIONS))
    def pods_recover(self, version: str) -> None:
        world = World(spec(version))
        self.world.failures.pop(world.target().name, None)
        self.world.lost.pop(world.target().name, None)
        self.world.unready.discard(world.target().name)

    @rule(version=st.sampled_from(VERSIONS))
    def pods_unready(self, version: str) -> None:
        self.world.unready.add(World(spec(version)).target().name)

    @rule(version=st.sampled_from(VERSIONS), pods=st.integers(1, 2))
    def pods_lose_readiness(self, version: str, pods: int) -> None:
        """They run on, and are not ready any more."""
        name = World(spec(version)).target().name
        self.world.lost[name] = {f"pod-{number}": self.world.now for number in range(pods)}

    @rule(
        version=st.sampled_from(VERSIONS),
        errors=st.sampled_from([0.0, 0.0005, 0.05, 1.0]),
        slow=st.sampled_from([0.0, 0.005, 0.2]),
    )
    def quality(self, version: str, errors: float, slow: float) -> None:
        name = World(spec(version)).target().name
        self.world.error_rate[name] = errors
        self.world.slow_rate[name] = slow

    @rule(down=st.booleans())
    def prometheus(self, down: bool) -> None:
        self.world.prometheus_down = down

    @rule(down=st.booleans())
    def gateway(self, down: bool) -> None:
        self.world.gateway_down = down

    @rule(rate=st.sampled_from([0.0, 3.0, 200.0]))
    def traffic(self, rate: float) -> None:
        self.world.rate = rate

    @rule(
        verb=st.sampled_from(["promote", "approve", "abort", "rollback", "retry"]),
        value=st.sampled_from(["previous", "v1", "v1#2", "v2"]),
    )
    def somebody_asks(self, verb: str, value: str) -> None:
        self.world.asked[verb] = value

    @rule(held=st.booleans())
    def pause(self, held: bool) -> None:
        self.world.asked["pause"] = str(held).lower()

    @precondition(lambda self: self.world.status.release is not None)
    @rule()
    def every_path_ends(self) -> None:
        """With the outages over and traffic flowing, any release ends."""
        world = self.world
        world.prometheus_down = world.gateway_down = False
        world.rate = 200.0
        world.asked.pop("pause", None)
        world.run(settled, limit=1500)

    @invariant()
    def weights_are_whole(self) -> None:
        weights = self.world.plan.weights
        assert not weights or sum(weights.values()) == 100
        assert all(0 <= weight <= 100 for weight in weights.values())

    @invariant()
    def traffic_only_goes_to_known_roles(self) -> None:
        status = self.world.status
        roles = {ref.revision for ref in (status.live, status.previous) if ref}
        if status.release:
            roles.add(status.release.revision)
        live = self.world.plan.weights
        planned = {item.revision.name for item in self.world.plan.revisions} | self.world.plan.keep
        assert set(live) <= planned, "a route to a revision without pods"

    @invariant()
    def failed_revisions_get_no_traffic(self) -> None:
        status = self.world.status
        if status.release is None and status.live is not None:
            for failed in status.failed_revisions:
                if failed != status.live.revision:
                    assert self.world.plan.weights.get(failed, 0) == 0 or self.pending_plan()

    def pending_plan(self) -> bool:
        """The stored status is ahead of the applied plan: the operator was killed in between."""
        decision = self.world.decide(store=False)
        return decision.plan != self.world.plan

    @invariant()
    def the_live_revision_changes_only_by_promotion(self) -> None:
        status = self.world.status
        if status.live is not None and status.last_release is not None:
            assert status.live.since is not None


TestReleases = Releases.TestCase
TestReleases.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
