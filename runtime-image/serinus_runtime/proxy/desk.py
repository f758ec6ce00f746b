"""What all requests that pass to the engine beside us share."""

from __future__ import annotations

from dataclasses import dataclass, field

from serinus_runtime.metrics import Metrics
from serinus_runtime.proxy.breaker import Breaker
from serinus_runtime.proxy.meters import Meters
from serinus_runtime.proxy.pool import Pool
from serinus_runtime.proxy.record import Recorder
from serinus_runtime.proxy.settings import Settings
from serinus_runtime.proxy.tunnel import End
from serinus_runtime.state import State


@dataclass
class Desk:
    """What all passages share."""

    settings: Settings
    pool: Pool
    breaker: Breaker
    meters: Meters
    metrics: Metrics
    state: State
    queue_seconds: float
    recorder: Recorder | None = None
    serving: bool = False
    """True once the engine was ready and warmed up."""
    tunnels: set[End] = field(default_factory=set)
    """The engine's ends of them."""
