"""The release matrix on a real cluster under load.

    make matrix [ARGS="--minutes 40 --lanes 2 --rate 40 --only Canary | --report"]

Results are appended to build/matrix/cells.jsonl: a run that was cut short goes on where it was. A cell of the table is
the outcome, the seconds from `kubectl apply` to the end, and failed requests: others' + the bad candidate's own.
The same as a picture is in build/matrix/matrix.svg.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import cluster as clusters
from bench.matrix import picture
from bench.matrix.cells import DISTURBANCES, cells, kept
from bench.matrix.report import result, table
from bench.matrix.run import Run, read

OUT = Path(__file__).parents[3] / "build" / "matrix"


def main() -> int:
    """The command line; exit code 1 when a cell is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no cell after so many")
    parser.add_argument("--lanes", type=int, default=2, help="namespaces side by side")
    parser.add_argument("--rate", type=float, default=40.0, help="users' requests per second in each lane")
    parser.add_argument("--only", default="", help="only cells whose name contains this")
    parser.add_argument("--disturbances", default=",".join(DISTURBANCES), help="only these, with commas between")
    parser.add_argument("--again", action="store_true", help="also those that were not as they must be")
    parser.add_argument("--report", action="store_true", help="only tell what was found so far")
    options = parser.parse_args()
    # A shell starts what is in its background deaf to SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    OUT.mkdir(parents=True, exist_ok=True)
    results = OUT / "cells.jsonl"
    done = read(results)
    if options.again:
        done = {cell.key: done[cell.key] for cell in cells() if cell.key in done and kept(cell, done[cell.key])}
    wanted = [cell for cell in cells() if options.only in cell.key and cell.disturbance in options.disturbances]
    todo = [cell for cell in wanted if cell.key not in done]
    interrupted = False
    if todo and not options.report:
        try:
            met = [cell for cell in cells() if cell.key in done]
            Run(clusters.get(), todo, met, results, options.minutes).go(options.lanes, options.rate)
        except KeyboardInterrupt:
            interrupted = True
    found = read(results)
    (OUT / "table.md").write_text(table(found) + "\n")
    picture.draw(found, OUT / "matrix.svg")
    print(table(found))
    print(result(found))
    well = all(kept(cell, found[cell.key]) for cell in cells() if cell.key in found)
    return 130 if interrupted else 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
