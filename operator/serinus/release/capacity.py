"""How many replicas a share of the traffic needs."""

from __future__ import annotations

import math

from serinus.api.spec import Scaling


def floor_for(weight: int, scaling: Scaling, live_replicas: int) -> int:
    """Fewest replicas for `weight` percent of what `live_replicas` pods serve now, within min and max."""
    top = max(scaling.min, scaling.max or scaling.min)
    return min(top, max(scaling.min, math.ceil(live_replicas * weight / 100)))
