"""One namespace in which cell after cell is played."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.matrix.cells import CANDIDATES, SLO, STRATEGIES, Cell, Outcome, judged
from cluster import Provider
from cluster.addons_gateway import SYSTEM
from cluster.commands import output
from fraud import store
from support.eventually import eventually
from support.releases import Load, Operator, Release

MOST = 150.0
"""Seconds that a cell's release may take on a busy machine."""
PAUSE = 6.0
"""Seconds that Prometheus is away."""
AFTER = 3.0
"""Seconds of load after the end, in which late failures would show."""
Object = dict[str, Any]


class Arena:
    """A live v1, an operator, and users while a cell is played. `release.models` must have the bad versions."""

    def __init__(self, release: Release, operator: Operator, provider: Provider, folder: Path, rate: float) -> None:
        self._release, self._operator, self._provider = release, operator, provider
        self._folder, self._rate = folder, rate
        self._played = 0
        self._run = f"{time.time():.0f}"[-5:]

    def play(self, cell: Cell) -> Outcome:
        """Plays one cell and brings v1 back."""
        self._played += 1
        self._restore()
        name = f"{cell.candidate}-{self._run}-{self._played}"
        log = self._folder / f"{name}.csv"
        load = Load(self._release.cluster, self._release.host, log, self._rate, seconds=MOST + 60, timeout=15.0)
        load.start()
        try:
            eventually(lambda: self._served(log), 30)
            began = time.time()
            self._apply(cell, name)
            trouble = threading.Thread(target=self._disturb, args=(cell.disturbance, began))
            trouble.start()
            outcome, reason = self._end(cell, name, began)
            ended = time.time()
            trouble.join()
            time.sleep(AFTER)
        finally:
            records = load.stop()
        first = next((i for i, record in enumerate(records) if not record.failed), 0)
        return judged(cell, name, outcome, reason, records[first:], began, ended)

    def _restore(self) -> None:
        """v1 is live and settled; a ModelDeployment that cannot be brought there is made anew."""
        try:
            self._apply_model("v1", "v1", {"rollbackWindow": "1s"})
            self._release.wait_live("v1", 90)
        except AssertionError:
            self._release.kubectl("delete", "mdep", store.DEPLOYMENT, "--ignore-not-found", "--wait=true")
            self._apply_model("v1", "v1", {"rollbackWindow": "1s"})
            self._release.wait_live("v1", 120)

    @staticmethod
    def _served(log: Path) -> None:
        from fraud.records import read

        assert sum(not record.failed for record in read(log)) > 20, "users are not answered yet"

    def _apply(self, cell: Cell, name: str) -> None:
        self._apply_model(CANDIDATES[cell.candidate], name, STRATEGIES[cell.strategy])

    def _apply_model(self, version: str, name: str, plan: Object) -> None:
        built = self._release.models[version]
        uri = f"http://{store.NAME}.{self._release.namespace}.svc/fraud/{built.version}/"
        model = {"version": name, "uri": uri, "digest": built.digest}
        # One manifest fits all: only the model differs.
        self._release.apply("v2", model=model, slo=SLO, release=plan)

    def _end(self, cell: Cell, name: str, began: float) -> tuple[str, str]:
        """Outcome and reason. A bad version that was promoted may still be found out in its window."""
        outcome = reason = ""
        while time.time() < began + MOST:
            status = self._release.status()
            last = status.get("lastRelease") or {}
            if last.get("version") == name and "release" not in status:
                outcome, reason = last["outcome"], last["reason"]
                if outcome in cell.expected or outcome != "Promoted":
                    return outcome, reason
            time.sleep(0.5)
        return outcome or "Unfinished", reason or str((self._release.status().get("release") or {}).get("reason"))

    def _disturb(self, what: str, began: float) -> None:
        """Strikes when users meet the candidate, or ten seconds after it was applied."""
        while time.time() < began + 10 and not (self._release.status().get("release") or {}).get("weight"):
            time.sleep(0.3)
        _TROUBLE[what](self)

    def _kill_operator(self) -> None:
        self._operator.kill()
        self._operator.start()

    def _stop_prometheus(self) -> None:
        self._provider.stop_component("prometheus")
        try:
            time.sleep(PAUSE)
        finally:
            self._provider.start_component("prometheus")

    def _restart_gateway(self) -> None:
        """Its proxies, as an upgrade does it: a new one, then the old one drains."""
        info = self._release.cluster
        kubectl: list[str | Path] = [info.kubectl, "--kubeconfig", info.kubeconfig, "-n", SYSTEM]
        chosen = f"gateway.envoyproxy.io/owning-gateway-name={info.gateway[1]}"
        output([*kubectl, "rollout", "restart", "deployment", "-l", chosen])
        output([*kubectl, "rollout", "status", "deployment", "-l", chosen, "--timeout=90s"])


_TROUBLE: dict[str, Callable[[Arena], None]] = {
    "nothing": lambda arena: None,
    "operator killed": Arena._kill_operator,
    "Prometheus down": Arena._stop_prometheus,
    "gateway restarted": Arena._restart_gateway,
}
