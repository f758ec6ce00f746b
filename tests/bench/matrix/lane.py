"""A lane: one namespace with a live version, an operator and users; cell after cell is played in it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.matrix.api import Api
from bench.matrix.cells import CANDIDATES, SLO, Cell, Outcome, judged
from bench.matrix.strategies import STRATEGIES, WINDOW, plan, preview_host
from bench.matrix.trouble import Strike
from cluster import ClusterError, ClusterInfo
from cluster.commands import output
from fraud import store
from fraud.records import Reader, Record
from fraud.train import Built
from support.eventually import eventually
from support.releases import NAME, Load, Operator, Release

STORE = "matrix-store"
LABEL = "bench.serinus.dev/matrix=lane"
"""Of the lanes' namespaces."""
MOST = 150.0
"""Seconds that a cell's release may take on a busy machine."""
SOON = 10.0
"""Seconds after which a disturbance strikes candidates that have no users yet."""
CALM = 60.0
"""Seconds in which users of the live version must be answered before a cell begins."""
LATELY = 2.0
"""Seconds without a failure that are calm."""
AFTER = 3.0
"""Seconds of load after the end, in which late failures would show."""
Object = dict[str, Any]


class LaneError(Exception):
    """The lane cannot be brought to where a cell starts, or the run is to end."""


class Lane:
    """`models` must have the bad versions, and the store in the namespace `STORE` must serve them."""

    def __init__(
        self, info: ClusterInfo, api: Api, models: dict[str, Built], number: int, folder: Path, rate: float
    ) -> None:
        self._info, self._api, self._models, self._number, self._rate = info, api, models, number, rate
        self._folder = folder / f"lane-{number}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._played = self._opened = 0
        self._run = f"{time.time():.0f}"[-5:]
        self._release: Release | None = None
        self._operator: Operator | None = None
        self._good = ("v1", "v1")
        """Version of the model that is live between cells, and what it is called."""
        self.stopped = threading.Event()
        """Set: the cell under way is broken off."""

    def open(self) -> None:
        """A namespace of its own with a live v1. Raises LaneError."""
        self.close()
        self._opened += 1
        namespace = f"matrix-{self._number}-{self._run}-{self._opened}"
        kubectl: list[str | Path] = [self._info.kubectl, "--kubeconfig", self._info.kubeconfig]
        output([*kubectl, "create", "namespace", namespace])
        output([*kubectl, "label", "namespace", namespace, LABEL, "pod-security.kubernetes.io/enforce=restricted"])
        self._release = Release(self._info, namespace, self._models)
        self._operator = Operator(self._info, namespace, self._folder)
        self._operator.start()
        self._good = ("v1", "v1")
        self._restore(120)

    def close(self) -> None:
        """Ends the operator; the namespace goes in its own time."""
        if self._operator:
            self._operator.kill()
        if self._release:
            self._release.kubectl("delete", "namespace", self._release.namespace, "--wait=false", "--ignore-not-found")
        self._release = self._operator = None

    def play(self, cell: Cell, strike: Strike | None) -> Outcome:
        """Plays one cell, in which `strike` is what hits all lanes.

        Raises:
            LaneError: no good version can be made live, or the run is to end.
            ClusterError, OSError: the cluster does not answer, or what should have gone wrong did not.
        """
        if not self._restored(self._status()):
            self._restore(90)
        self._played += 1
        name = f"{cell.candidate}-{self._run}{self._number}-{self._played}"
        loads = self._loads(cell, name)
        troubles: list[Exception] = []
        try:
            for load in loads:
                load.start()
            self._answered(loads[0])
            began = time.time()
            self._apply(CANDIDATES[cell.candidate], name, plan(cell.strategy, cell.candidate, name, self._host))
            trouble = threading.Thread(target=self._disturb, args=(cell, name, strike, began, troubles))
            trouble.start()
            outcome, reason = self._end(cell, name, began)
            ended = time.time()
            trouble.join()
            time.sleep(AFTER)
        finally:
            found = [load.stop() for load in loads]
        if troubles:
            raise troubles[0]
        if outcome == "Promoted" and cell.candidate == "good":
            self._good = (CANDIDATES[cell.candidate], name)
            if not self._restored(self._status()):
                outcome, reason = "NotLive", "it was promoted, and something else is live"
        judgement = judged(cell, name, outcome, reason, since_answered(found, began - LATELY), began, ended)
        return replace(judgement, load=os.getloadavg()[0])

    def _answered(self, load: Load) -> None:
        """Users have been answered for `LATELY` without a failure: a machine that is overloaded shows nothing."""
        reader, known, until = Reader(load.out), list[Record](), time.monotonic() + CALM
        while True:
            known += reader.poll()
            lately = [record for record in known if record.at > time.time() - LATELY]
            if len(lately) > self._rate * LATELY / 4 and not any(record.failed for record in lately):
                return
            if time.monotonic() > until:
                raise LaneError(f"users are not answered well after {CALM:.0f} s, and no release is under way")
            self._pause()

    @property
    def _host(self) -> str:
        assert self._release is not None
        return self._release.host

    def _loads(self, cell: Cell, name: str) -> list[Load]:
        """The users, and testers where there is a preview."""
        strategy = STRATEGIES[cell.strategy]
        crowds = {self._host: self._rate}
        if strategy.testers:
            crowds[preview_host(self._host)] = self._rate / 2
        return [
            Load(
                self._info,
                host,
                self._folder / f"{name}{'-preview' * number}.csv",
                rate,
                seconds=CALM + MOST + 60,
                timeout=15.0,
                seed=7 + number,
                users=strategy.users,
            )
            for number, (host, rate) in enumerate(crowds.items())
        ]

    def _restored(self, status: Object) -> bool:
        live: Object = status.get("live") or {}
        return live.get("version") == self._good[1] and "release" not in status

    def _restore(self, seconds: float) -> None:
        """The last good version is live and nothing is under way."""
        self._apply(*self._good, {"strategy": "BlueGreen", "rollbackWindow": "1s"})
        until = time.monotonic() + seconds
        while not self._restored(self._status()):
            self._pause()
            if time.monotonic() > until:
                raise LaneError(f"version {self._good[1]} is not live after {seconds:.0f} s: {self._status()}"[:1500])

    def _apply(self, version: str, name: str, release: Object) -> None:
        assert self._release is not None
        built = self._models[version]
        model = {
            "version": name,
            "uri": f"http://{store.NAME}.{STORE}.svc/fraud/{built.version}/",
            "digest": built.digest,
        }
        runtime = {
            "name": "onnx",
            "batching": {"maxSize": 32, "maxDelay": "3ms"},
            "queue": {"maxLength": 512, "timeout": "10s"},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        }
        # One manifest fits all: only the model differs.
        self._release.apply("v2", model=model, runtime=runtime, scaling={"min": 1}, slo=SLO, release=release)

    def _status(self) -> Object:
        assert self._release is not None
        path = f"/apis/serving.serinus.dev/v1alpha1/namespaces/{self._release.namespace}/modeldeployments/{NAME}"
        status: Object = eventually(lambda: self._api.get(path), 30, 1.0).get("status", {})
        return status

    def _pause(self) -> None:
        """Between two looks."""
        if self.stopped.wait(0.3):
            raise LaneError("broken off")

    def _end(self, cell: Cell, name: str, began: float) -> tuple[str, str]:
        """Outcome and reason. A bad version that was promoted may still be found out in its window."""
        promoted = None
        while time.time() < began + MOST:
            status = self._status()
            last = status.get("lastRelease") or {}
            if last.get("version") == name and "release" not in status:
                outcome, reason = last["outcome"], last["reason"]
                promoted = promoted or time.time()
                if outcome in cell.expected or outcome != "Promoted" or time.time() > promoted + WINDOW + 5:
                    return outcome, reason
            self._pause()
        running = self._status().get("release") or {}
        return "Unfinished", f"{running.get('phase')}: {running.get('reason')}: {running.get('message')}"

    def _disturb(self, cell: Cell, name: str, strike: Strike | None, began: float, troubles: list[Exception]) -> None:
        """Strikes when users meet the candidate, or soon after it was applied."""
        try:
            while time.time() < began + SOON and not self._met(name):
                self._pause()
            if strike:
                strike.meet()
            elif cell.disturbance == "operator killed":
                assert self._operator is not None
                self._operator.kill()
                self._operator.start()
        except (LaneError, ClusterError, OSError) as error:
            troubles.append(error)

    def _met(self, name: str) -> bool:
        """Whether users meet the candidate, or its release is over already."""
        status = self._status()
        over = (status.get("lastRelease") or {}).get("version") == name
        return over or bool((status.get("release") or {}).get("weight"))


def since_answered(found: list[list[Record]], began: float) -> list[Record]:
    """All requests from `began` on, each crowd's from its first that was answered: a preview has no address before its
    step. A crowd that was never answered counts in full."""
    kept: list[Record] = []
    for records in found:
        first = min((record.at for record in records if not record.failed), default=began)
        kept += [record for record in records if record.at >= max(first, began)]
    return sorted(kept, key=lambda record: record.at)
