"""What people read: columns that follow what matters and leave noise alone."""

from __future__ import annotations

import dataclasses

import pytest

from serinus.release.observed import Decision, Evidence, Rates
from unit.release.world import World, with_live


class Measured(World):
    """A world in which the live revision has these rates."""

    rates = Rates()

    def evidence(self) -> Evidence:
        return dataclasses.replace(super().evidence(), rates={self.target().name: self.rates})


def measured(world: World, p99: float | None, errors: float | None) -> Decision:
    world.__class__ = Measured
    world.rates = Rates(p99=p99, error_rate=errors)  # type: ignore[attr-defined]
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
