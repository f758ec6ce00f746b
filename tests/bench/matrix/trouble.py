"""What goes wrong while releases are under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from cluster import ClusterError, Provider
from cluster.addons_gateway import SYSTEM
from cluster.commands import output

PAUSE = 6.0
"""Seconds that Prometheus is away."""
PATIENCE = 30.0
"""Seconds that a lane waits for the others before it is struck alone."""


class Strike:
    """Something that happens once, when all lanes of a batch are where it should meet them."""

    def __init__(self, act: Callable[[], None], lanes: int) -> None:
        self._act = act
        self._turn = threading.Lock()
        self._struck = False
        self._barrier = threading.Barrier(lanes, action=self._once)

    def meet(self) -> None:
        """Returns when it has happened. Whoever has waited for too long, or is left alone, does not wait for others."""
        try:
            self._barrier.wait(PATIENCE)
        except threading.BrokenBarrierError:
            self._once()

    def leave(self) -> None:
        """A lane will not come."""
        self._barrier.abort()

    def cancel(self) -> None:
        """It is not to happen any more."""
        with self._turn:
            self._struck = True
        self._barrier.abort()

    def _once(self) -> None:
        with self._turn:
            if not self._struck:
                self._act()
                self._struck = True


def stop_prometheus(provider: Provider) -> None:
    """Kills it, and starts it again."""
    provider.stop_component("prometheus")
    try:
        time.sleep(PAUSE)
    finally:
        for last in (False, False, True):
            try:
                provider.start_component("prometheus")
                break
            except ClusterError:
                if last:
                    raise


def restart_gateway(provider: Provider) -> None:
    """Its proxies, as an upgrade does it: a new one, then the old one drains."""
    info = provider.start()
    kubectl: list[str | Path] = [info.kubectl, "--kubeconfig", info.kubeconfig, "-n", SYSTEM]
    chosen = f"gateway.envoyproxy.io/owning-gateway-name={info.gateway[1]}"
    output([*kubectl, "rollout", "restart", "deployment", "-l", chosen])
    output([*kubectl, "rollout", "status", "deployment", "-l", chosen, "--timeout=90s"])


TROUBLE: dict[str, Callable[[Provider], None]] = {
    "Prometheus down": stop_prometheus,
    "gateway restarted": restart_gateway,
}
"""By what it is called in `cells.SHARED`."""
