"""Elsewhere no data, NaN or a query error counts as success, as failure, or aborts: here it holds and says so."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from unit.pains.scenes import under_way
from unit.release.world import World, releasing, settled

OWN = [{"name": "declined", "query": "sum by (model_namespace, model_deployment, revision) (x)", "max": 5}]


def away(world: World) -> None:
    world.prometheus_down = True


def silent(world: World) -> None:
    world.rate = 0.0


def nothing_of_ones_own(world: World) -> None:
    world.own = {}


def an_error(world: World) -> None:
    world.own = dict.fromkeys(world.own, "Prometheus answered 422: bad query")


@pytest.mark.parametrize("fault", [away, silent, nothing_of_ones_own, an_error])
def test_weights_stay_and_it_goes_on_by_itself(fault: Callable[[World], None]) -> None:
    changes = releasing(metrics=OWN)
    world = under_way(**changes)
    good: dict[str, dict[str, float] | str] = {OWN[0]["query"]: {world.target().name: 1.0}}  # type: ignore[dict-item]
    world.own = dict(good)
    fault(world)
    for _ in range(120):
        world.tick()
        assert world.status.release is not None, "ended on no data"
        assert world.status.release.weight == 5, "moved on no data"
    assert world.status.release is not None
    assert world.status.release.reason in {"EvidenceMissing", "EvidenceStale", "MetricMissing", "NoRequests"}
    assert world.status.release.message
    world.prometheus_down, world.rate, world.own = False, 200.0, good
    world.run(settled)
    assert world.live() == "v2"


def test_nan_is_no_measurement() -> None:
    world = under_way(**releasing(metrics=OWN))
    world.own = {str(OWN[0]["query"]): {world.target().name: math.nan}}
    for _ in range(60):
        world.tick()
        assert world.status.release is not None
        assert world.status.release.weight == 5
