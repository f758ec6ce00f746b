"""How many users a bad version reaches: Serinus beside Flagger, on one cluster, at the same time, under the same load.

    make bench-exposure [ARGS="--good 20 --bad 3 --lanes 2,4,2 --rate 25 --minutes 60 | --quick | --report"]

Flagger is built from its Go module. Each trial is one release in a namespace of its own kind, with the demo's load
generator as users; trials of different controllers run at the same time, so that a slow minute of the machine is
everybody's. Results are appended to build/exposure/trials.jsonl: a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from pathlib import Path

import yaml

import cluster as clusters
import fraud.store as store
from bench.exposure import flagger, picture
from bench.exposure.eyes import Eyes
from bench.exposure.lanes import STORE, FlaggerLane, Lane, SerinusLane, TrialError
from bench.exposure.measure import Figures
from bench.exposure.report import result, table
from bench.exposure.trials import CONTENDERS, Contender, Trial, trials
from cluster import ClusterError, ClusterInfo, Provider
from cluster.commands import output
from support.faults import built
from support.releases import Operator

ROOT = Path(__file__).parents[3]
OUT = ROOT / "build" / "exposure"


class SerinusOperator(Operator):
    """The operator at its defaults, for all lanes."""

    def __init__(self, cluster: ClusterInfo, namespaces: list[str], folder: Path) -> None:
        super().__init__(cluster, "exposure", folder)
        for name in ("SERINUS_TICK", "SERINUS_LEASE_DURATION"):
            del self._environment[name]
        self._environment["SERINUS_WATCH_NAMESPACES"] = ",".join(namespaces)


def read(path: Path) -> list[Figures]:
    """Results so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Figures(**json.loads(line)) for line in lines]


class Run:
    """Lanes side by side until the trials or the time are used up."""

    def __init__(self, info: ClusterInfo, options: argparse.Namespace, results: Path) -> None:
        self._info, self._options, self._results = info, options, results
        self._until = time.monotonic() + 60 * options.minutes
        self._lock = threading.Lock()
        done = {each.key for each in read(results)}
        self._left: dict[Contender, queue.SimpleQueue[Trial]] = {who: queue.SimpleQueue() for who in CONTENDERS}
        for trial in trials(options.good, options.bad, quick=options.quick):
            skipped = any(part in trial.key for part in options.skip)
            if trial.key not in done and not skipped and (not options.only or options.only in trial.key):
                self._left[trial.contender].put(trial)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> None:
        output([self._info.kubectl, "--kubeconfig", self._info.kubeconfig, *arguments], stdin=stdin)

    def go(self) -> None:
        models = built()
        self._prepare()
        eyes = Eyes(self._info)
        lanes: list[Lane] = []
        for who, most in zip(CONTENDERS, self._options.lanes, strict=True):
            for number in range(min(most, self._left[who].qsize())):
                kind = FlaggerLane if who.flagger else SerinusLane
                lanes.append(kind(self._info, eyes, models, who, number, self._options.rate))
                lanes[-1].deadline = self._until
        mine = [lane.namespace for lane in lanes if isinstance(lane, SerinusLane)]
        operator = SerinusOperator(self._info, mine, OUT)
        other = flagger.Process(self._info, OUT / "flagger.log") if len(mine) < len(lanes) else None
        if mine:
            operator.start()
        threads = [threading.Thread(target=self._work, args=(lane,)) for lane in lanes]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            # Each lane ends its users before it ends.
            for lane in lanes:
                lane.deadline = 0.0
            for thread in threads:
                thread.join(60)
            raise
        finally:
            operator.stop()
            if other:
                other.stop()
            eyes.close()
            for namespace in [*(lane.namespace for lane in lanes), STORE]:
                self.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")

    def _prepare(self) -> None:
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        if any(not left.empty() for who, left in self._left.items() if who.flagger):
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(flagger.crds()))
        documents = store.manifests(built().values(), "serinus-runtime:dev")
        for document in documents:
            document["metadata"]["namespace"] = STORE
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORE}}
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all([namespace, *documents]))
        self.kubectl("-n", STORE, "rollout", "status", f"deployment/{store.NAME}", "--timeout=120s")

    def _work(self, lane: Lane) -> None:
        left = self._left[lane.who]
        try:
            lane.open()
            while not left.empty():
                try:
                    trial = left.get_nowait()
                except queue.Empty:
                    break
                if time.monotonic() + self._expected(trial) > self._until:
                    continue  # a shorter one may still fit
                self._note(lane.run(trial, OUT))
        except (TrialError, ClusterError) as error:
            print(f"  {error}", file=sys.stderr, flush=True)
        finally:
            lane.close()

    @staticmethod
    def _expected(trial: Trial) -> float:
        """Seconds that a trial takes when it is caught."""
        who = trial.contender
        return 60.0 if not who.flagger else 60.0 + who.interval * (who.threshold + 1 if trial.bad else 8)

    def _note(self, figures: Figures) -> None:
        with self._lock, self._results.open("a") as file:
            file.write(json.dumps(figures.to_json()) + "\n")
        detect = "-" if figures.detect is None else f"{figures.detect:.1f} s"
        print(
            f"  {figures.key}: {figures.outcome} after {detect}, {figures.exposed} exposed, {figures.bad} bad of "
            f"{figures.requests} ({figures.reason[:90]})",
            flush=True,
        )


def prepared(provider: Provider) -> ClusterInfo:
    """The cluster with the runtime's image."""
    info = provider.start()
    provider.load_image(provider.build_image("runtime"))
    return info


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=20, help="good releases for each controller")
    parser.add_argument("--bad", type=int, default=3, help="trials of each bad version for each controller")
    parser.add_argument(
        "--lanes",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[1, 1, 1],
        help="namespaces side by side for Serinus, Flagger's example and Flagger's fastest setting, as in 2,4,2",
    )
    parser.add_argument("--rate", type=float, default=25.0, help="users' requests per second in each lane")
    parser.add_argument("--minutes", type=float, default=240.0, help="break off after so many")
    parser.add_argument("--skip", action="append", default=[], help="no trials whose key contains this; repeatable")
    parser.add_argument("--only", default="", help="only trials whose key contains this")
    parser.add_argument("--quick", action="store_true", help="one bad version, Serinus and Flagger's fastest")
    parser.add_argument("--report", action="store_true", help="only tell what was found so far")
    options = parser.parse_args()
    if len(options.lanes) != len(CONTENDERS):
        parser.error(f"--lanes takes {len(CONTENDERS)} numbers, as in 2,4,2")
    if options.quick:
        options.good, options.bad, options.lanes = min(options.good, 1), 1, [1, 1, 1]
    OUT.mkdir(parents=True, exist_ok=True)
    results = OUT / "trials.jsonl"
    if not options.report:
        Run(prepared(clusters.get()), options, results).go()
    found = read(results)
    if not found:
        print("nothing measured yet", file=sys.stderr)
        return 1
    picture.draw(found, OUT / "exposure.svg")
    (OUT / "table.md").write_text(table(found) + "\n")
    print(table(found))
    print(result(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
