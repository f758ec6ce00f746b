"""The release matrix on a real cluster under load.

    make matrix [ARGS="--minutes 30 --rate 30 --only Canary"]

Results are appended to build/matrix/cells.jsonl: a run that was cut short goes on where it was. A cell of the table is
the outcome, the seconds from `kubectl apply` to the end, and failed requests: others' + the bad candidate's own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cluster as clusters
from bench.matrix.arena import Arena
from bench.matrix.cells import Cell, Outcome, cells, kept, result, table
from cluster.commands import output
from support.faults import built
from support.releases import Operator, Release

ROOT = Path(__file__).parents[3]
OUT = ROOT / "build" / "matrix"
NAMESPACE = "matrix"


def read(path: Path) -> dict[str, Outcome]:
    """Results so far by key; the latest of each."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Outcome(**json.loads(line)) for line in lines]
    return {each.key: each for each in found}


def play(todo: list[Cell], results: Path, minutes: float, rate: float) -> None:
    """Plays cells until the time is used up."""
    provider = clusters.get()
    info = provider.start()
    provider.load_image(provider.build_image("runtime"))
    kubectl: list[str | Path] = [info.kubectl, "--kubeconfig", info.kubeconfig]
    # A run that was killed leaves its namespace.
    output([*kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found"])
    output([*kubectl, "create", "namespace", NAMESPACE])
    release = Release(info, NAMESPACE, built())
    operator = Operator(info, NAMESPACE, OUT)
    until = time.monotonic() + 60 * minutes
    try:
        release.without_other_operators()
        release.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        release.install_store()
        operator.start()
        arena = Arena(release, operator, provider, OUT, rate)
        for cell in todo:
            if time.monotonic() > until:
                break
            found = arena.play(cell)
            with results.open("a") as file:
                file.write(json.dumps(found.to_json()) + "\n")
            word = "ok  " if kept(cell, found) else "NOT "
            told = f"{found.outcome} {found.reason}, {found.seconds:.0f} s, {found.requests} requests"
            print(f"  {word}{cell.key}: {told}, {found.own} of its own and {found.others} others failed", flush=True)
            for example in found.examples:
                print(f"       {example}", flush=True)
    finally:
        operator.kill()
        output([*kubectl, "delete", "namespace", NAMESPACE, "--wait=false"])


def main() -> int:
    """The command line; exit code 1 when a cell is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no cell after so many")
    parser.add_argument("--rate", type=float, default=40.0, help="users' requests per second")
    parser.add_argument("--only", default="", help="only cells whose name contains this")
    parser.add_argument("--again", action="store_true", help="also those that were not as they must be")
    parser.add_argument("--report", action="store_true", help="only tell what was found so far")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    results = OUT / "cells.jsonl"
    done = read(results)
    if options.again:
        done = {cell.key: done[cell.key] for cell in cells() if cell.key in done and kept(cell, done[cell.key])}
    todo = [cell for cell in cells() if cell.key not in done and options.only in cell.key]
    if todo and not options.report:
        play(todo, results, options.minutes, options.rate)
    found = read(results)
    (OUT / "table.md").write_text(table(found) + "\n")
    print(table(found))
    print(result(found))
    return 0 if all(kept(cell, found[cell.key]) for cell in cells() if cell.key in found) else 1


if __name__ == "__main__":
    sys.exit(main())
