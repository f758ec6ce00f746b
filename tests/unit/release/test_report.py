"""What people read: columns that follow what matters and leave noise alone."""

from __future__ import annotations

import pytest

from serinus.release.observed import Decision, Rates
from unit.release.world import World, with_live


def measured(world: World, p99: float | None, errors: float | None) -> Decision:
    world.rates = {world.target().name: Rates(p99=p99, error_rate=errors)}
    return world.tick()


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        ((0.005, 0.0), (0.0065, 0.0), False),
        ((0.005, 0.0), (0.0095, 0.0), False),
        ((0.004, 0.0), (0.010, 0.0), True),
        ((0.020, 0.0), (0.008, 0.0), True),
        ((0.045, 0.0), (0.055, 0.0), True),
        ((0.055, 0.0), (0.070, 0.0), False),
        ((0.005, 0.0), (0.005, 0.00005), False),
        ((0.005, 0.0), (0.005, 0.0015), True),
        ((0.005, 0.0), (None, None), True),
    ],
)
def test_settled_columns_follow_what_matters(
    before: tuple[float, float], after: tuple[float | None, float | None], written: bool
) -> None:
    world = with_live()
    measured(world, *before)
    shown = measured(world, *before).status
    assert shown.metrics is not None
    assert (measured(world, *after).status != shown) is written
