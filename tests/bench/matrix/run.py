"""Batches of cells on several lanes, until none is left or the time is used up."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import yaml

from bench.matrix.api import Api
from bench.matrix.batches import batch
from bench.matrix.cells import SHARED, Cell, Outcome, kept
from bench.matrix.lane import LABEL, STORE, Lane
from bench.matrix.trouble import TROUBLE, Strike
from cluster import ClusterError, ClusterInfo, Provider
from cluster.commands import output
from fraud import store
from support.faults import built
from support.releases import Release

ROOT = Path(__file__).parents[3]
ATTEMPTS = 2
"""How often a cell is begun in one run when its lane breaks."""


def read(path: Path) -> dict[str, Outcome]:
    """Results so far by key; the latest of each."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Outcome(**json.loads(line)) for line in lines]
    return {each.key: each for each in found}


class Run:
    """Plays `todo`; `met` are those known from before."""

    def __init__(
        self, provider: Provider, todo: Sequence[Cell], met: Sequence[Cell], results: Path, minutes: float
    ) -> None:
        self._provider, self._results = provider, results
        self._todo, self._met = list(todo), list(met)
        self._total = len(todo)
        self._until = time.monotonic() + 60 * minutes
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._noted = 0

    def go(self, lanes: int, rate: float) -> None:
        """Opens the lanes and plays. A lane that cannot be opened again is left out."""
        provider = self._provider
        info = provider.start()
        _load_image(provider)
        models = built()
        self._prepare(info)
        api = Api(info)
        made = [Lane(info, api, models, number, self._results.parent, rate) for number in range(lanes)]
        try:
            with ThreadPoolExecutor(max_workers=lanes) as pool:
                try:
                    self._play(made, pool)
                except BaseException:
                    for lane in made:
                        lane.stopped.set()
                    raise
        finally:
            for lane in made:
                _quietly(lane.close)
            api.close()
            _kubectl(info, "delete", "namespace", STORE, "--wait=false", "--ignore-not-found")

    def _play(self, made: list[Lane], pool: ThreadPoolExecutor) -> None:
        lanes = [lane for lane, opened in zip(made, pool.map(_opened, made), strict=True) if opened]
        while lanes and time.monotonic() < self._until:
            chosen = batch([cell for cell in self._todo if self._begun[cell.key] < ATTEMPTS], self._met, len(lanes))
            if not chosen:
                break
            waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
            for cell in chosen:
                self._begun[cell.key] += 1
                waiting.put(cell)
            strike = self._strike(chosen[0].disturbance, min(len(lanes), len(chosen)))
            busy = {pool.submit(self._work, lane, waiting, strike): lane for lane in lanes}
            wait(busy)
            lanes = [lane for done, lane in busy.items() if done.result()]

    def _strike(self, disturbance: str, lanes: int) -> Strike | None:
        if disturbance not in SHARED:
            return None
        return Strike(lambda: TROUBLE[disturbance](self._provider), lanes)

    def _work(self, lane: Lane, waiting: queue.SimpleQueue[Cell], strike: Strike | None) -> bool:
        """Plays what is waiting; whether the lane is fit for more."""
        while True:
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                return True
            try:
                self._note(cell, lane.play(cell, strike))
            except Exception as error:  # whatever a sick cluster answers, the other lanes go on
                if lane.stopped.is_set():
                    if strike:
                        strike.cancel()
                    return False
                if strike:
                    strike.leave()
                print(f"  ---  {cell.key}: not played: {error!r}"[:1200], flush=True)
                if not _opened(lane):
                    return False

    def _note(self, cell: Cell, found: Outcome) -> None:
        with self._lock:
            with self._results.open("a") as file:
                file.write(json.dumps(found.to_json()) + "\n")
            self._todo.remove(cell)
            self._met.append(cell)
            self._noted += 1
            left = max(0.0, self._until - time.monotonic()) / 60
            word = "ok  " if kept(cell, found) else "NOT "
            progress = f"{word} {self._noted}/{self._total}, {left:.0f} min left"
            told = f"{found.outcome} {found.reason}, {found.seconds:.0f} s, {found.requests} requests"
            print(
                f"  {progress}: {cell.key}: {told}, {found.own} of its own and {found.others} others failed; "
                f"load {found.load:.0f}",
                *(f"       {example}" for example in found.examples),
                sep="\n",
                flush=True,
            )

    def _prepare(self, info: ClusterInfo) -> None:
        # A run that was killed leaves its namespaces.
        _kubectl(info, "delete", "namespace", "-l", LABEL, "--wait=false")
        _kubectl(info, "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        documents = store.manifests(built().values(), "serinus-runtime:dev")
        for document in documents:
            document["metadata"]["namespace"] = STORE
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORE}}
        _kubectl(info, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all([namespace, *documents]))
        _kubectl(info, "-n", STORE, "rollout", "status", f"deployment/{store.NAME}", "--timeout=120s")
        Release(info, STORE, {}).without_other_operators()


def _load_image(provider: Provider) -> None:
    """containerd may lose layers of an image while another command imports the same."""
    archive = provider.build_image("runtime")
    for last in (False, False, True):
        try:
            provider.load_image(archive)
        except ClusterError:
            if last:
                raise
            time.sleep(5)
        else:
            return


def _opened(lane: Lane) -> bool:
    """Whether the lane has a live version, at the second try at the latest."""
    for _ in range(2):
        try:
            lane.open()
        except Exception as error:
            if lane.stopped.is_set():
                return False
            print(f"  ---  a lane cannot be opened: {error!r}"[:1200], flush=True)
        else:
            return True
    return False


def _quietly(act: Callable[[], None]) -> None:
    """What is left behind is found by its label at the next run."""
    try:
        act()
    except Exception as error:
        print(f"  ---  {error!r}"[:300], flush=True)


def _kubectl(info: ClusterInfo, *arguments: str, stdin: str | None = None) -> None:
    output([info.kubectl, "--kubeconfig", info.kubeconfig, *arguments], stdin=stdin)
