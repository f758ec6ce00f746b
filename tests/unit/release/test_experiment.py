"""A/B tests: a step that ends when a business metric says which version is better."""

from __future__ import annotations

from typing import Any

import pytest

from serinus.api.experiment import Experiment
from serinus.api.shown import Arm, Recommendation
from serinus.api.status import Outcome, Phase
from serinus.release.experiments import grown
from serinus.release.observed import Decision
from unit.release.world import World, settled, spec, with_live

SUCCESSES, TRIALS = "sum by (model_namespace, model_deployment, revision) (orders)", "visitors"


def experiment(**changes: Any) -> dict[str, Any]:
    metric = {"successes": SUCCESSES, "trials": TRIALS, "interval": "4s"}
    return {"metric": metric, "baseline": "10%", "minimumEffect": "2%", "maxDuration": "2h", **changes}


def ab(before: int | None = None, **changes: Any) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"experiment": experiment(**changes)}]
    if before:
        steps.insert(0, {"weight": before, "hold": "20s", "minRequests": 50})
    return {"release": {"strategy": "AB", "steps": steps, "rollbackWindow": "10m"}}


class Shop(World):
    """A world whose users buy."""

    visitors: dict[str, int]
    orders: dict[str, float]
    share: dict[str, float]

    def tick(self, seconds: float = 2.0) -> Decision:
        before = dict(self.route)
        decision = super().tick(seconds)
        total = sum(before.values())
        for name, weight in before.items():
            come = round(100 * seconds * weight / total) if total else 0
            self.visitors[name] = self.visitors.get(name, 0) + come
            self.orders[name] = self.orders.get(name, 0.0) + come * self.share.get(name, 0.1)
        self.own = {
            TRIALS: {name: float(count) for name, count in self.visitors.items()},
            SUCCESSES: {name: float(int(count)) for name, count in self.orders.items()},
        }
        return decision


def shop(share: float, **changes: Any) -> tuple[Shop, str]:
    """A shop with v2 under release, whose users buy with this chance; with v1 it is one in ten."""
    world = with_live(**ab(**changes))
    made = Shop(**{name: getattr(world, name) for name in World.__dataclass_fields__})
    made.visitors, made.orders, made.share = {}, {}, {}
    made.tick()
    made.apply(spec("v2", **ab(**changes)))
    candidate = made.target().name
    made.share[candidate] = share
    return made, candidate


def ended(world: World) -> bool:
    release = world.status.release
    return bool(release and release.experiment and release.experiment.recommendation)


def test_a_better_candidate_is_recommended_and_waits() -> None:
    world, _ = shop(0.14)
    world.run(ended, 3000)
    release = world.status.release
    assert release is not None
    assert release.experiment is not None
    assert release.phase is Phase.EXPERIMENTING
    assert release.experiment.recommendation is Recommendation.PROMOTE
    assert (release.experiment.sample_size.live, release.experiment.sample_size.candidate) == (3841, 3841)
    assert release.reason == "ExperimentEnded"
    for _ in range(50):
        world.tick()
    assert world.status.release is not None
    assert world.status.release.weight == 50
    world.asked["approve"] = "yes"
    world.run(settled)
    assert world.live() == "v2"
    last = world.status.last_release
    assert last is not None
    assert last.experiment is not None
    assert last.experiment.recommendation is Recommendation.PROMOTE


def test_it_promotes_if_told_so() -> None:
    world, _ = shop(0.14, onSuccess="Promote")
    world.run(settled, 3000)
    assert world.live() == "v2"


@pytest.mark.parametrize("on_success", ["Recommend", "Promote"])
def test_a_worse_candidate_goes(on_success: str) -> None:
    world, _ = shop(0.06, onSuccess=on_success)
    world.run(settled, 3000)
    last = world.status.last_release
    assert world.live() == "v1"
    assert last is not None
    assert (last.outcome, last.reason) == (Outcome.ROLLED_BACK, "ExperimentLost")


def test_fewer_is_better_where_a_success_is_unwelcome() -> None:
    metric = {"successes": SUCCESSES, "trials": TRIALS, "interval": "4s", "higherIsBetter": False}
    world, _ = shop(0.06, metric=metric, onSuccess="Promote")
    world.run(settled, 3000)
    assert world.live() == "v2"


def test_without_a_difference_it_ends_in_time() -> None:
    world, _ = shop(0.1, maxDuration="10m")
    world.run(ended, 3000)
    release = world.status.release
    assert release is not None
    assert release.experiment is not None
    assert release.experiment.recommendation is Recommendation.KEEP_LIVE
    assert release.experiment.since is not None
    assert (world.now - release.experiment.since).total_seconds() >= 600
    assert release.weight == 50, "somebody has to say what follows"
    world.asked["abort"] = "yes"
    world.run(settled)
    assert world.live() == "v1"
    world, _ = shop(0.1, maxDuration="10m", onSuccess="Promote")
    world.run(settled, 3000)
    assert world.status.last_release is not None
    assert world.status.last_release.reason == "ExperimentUndecided"


def test_nobody_is_moved_before_the_metric_is_there() -> None:
    world, candidate = shop(0.14)
    tick, world.tick = world.tick, lambda seconds=2.0: World.tick(world, seconds)  # type: ignore[method-assign]
    world.own = {TRIALS: {}, SUCCESSES: "the query returns samples without labels"}
    for _ in range(30):
        world.tick()
    release = world.status.release
    assert release is not None
    assert (release.phase, release.weight, release.reason) == (Phase.EXPERIMENTING, 0, "MetricMissing")
    assert "does not begin" in (release.message or "")
    world.tick = tick  # type: ignore[method-assign]
    world.run(lambda w: w.status.release and w.status.release.weight == 50)
    assert world.route.get(candidate, 0) == 50 or world.plan.weights[candidate] == 50


def test_the_slo_rolls_back_meanwhile() -> None:
    world, candidate = shop(0.3)
    world.run(lambda w: w.status.release and w.status.release.weight == 50)
    world.error_rate[candidate] = 0.3
    world.run(settled)
    last = world.status.last_release
    assert last is not None
    assert last.reason == "ErrorRateTooHigh"


def test_it_follows_a_step_of_weight() -> None:
    world, _ = shop(0.14, before=5, onSuccess="Promote")
    world.run(settled, 3000)
    assert world.live() == "v2"
    seen = [w for w, after in zip(world.weights_seen, [*world.weights_seen[1:], 0], strict=True) if w != after]
    assert seen == [0, 5, 50, 100]


def test_only_those_who_take_part_are_divided() -> None:
    users = {"headers": [{"name": "X-Country", "value": "NZ"}]}
    world, _ = shop(0.14, users=users, onSuccess="Promote")
    world.run(lambda w: w.status.release and w.status.release.weight == 50)
    assert world.plan.users is not None
    world.run(settled, 3000)
    assert world.plan.users is None, "afterwards everybody gets the new version"


def test_a_counter_that_was_reset_counts_for_nothing() -> None:
    arm = Arm(trials=100, successes=10, seen_trials=500, seen_successes=50)
    after = grown(arm, (20, 2))
    assert (after.trials, after.successes) == (100, 10)
    after = grown(after, (30, 3))
    assert (after.trials, after.successes) == (110, 11)


def test_a_success_ahead_of_its_trial_waits() -> None:
    after = grown(Arm(), (1, 3))
    assert (after.trials, after.successes) == (1, 1)
    after = grown(after, (5, 3))
    assert (after.trials, after.successes) == (5, 3)


def test_sizes_need_room() -> None:
    assert Experiment.model_validate(experiment(baseline="4%", minimumEffect="0.5%")).effect == 0.005
    with pytest.raises(ValueError, match="no share leaves"):
        Experiment.model_validate(experiment(baseline="99%", minimumEffect="2%"))
