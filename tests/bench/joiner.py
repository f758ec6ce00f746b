"""What a shadow costs: the joiner's processor time per pair and its memory, and the tap's time in a pod.

    python -m bench.joiner [--rate 1000] [--seconds 10] [--percent 100]

A real joiner process reads two taps of this process over HTTP. The predictions are those of the fraud scorer: 13
inputs, a label, two probabilities and a rule. `--percent` is the share of live requests that is mirrored: the joiner
must look at the others as well. Ends with 1 where the joiner uses more than a core for 1,000 pairs/s, or loses a pair.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from serinus_runtime.about import About, Rule
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.http import Exchange, Limits, Site, connection
from serinus_runtime.predictionlog import Prediction
from serinus_runtime.shadow.admission import Admission
from serinus_runtime.shadow.front import TapFront
from serinus_runtime.shadow.tap import Tap
from serinus_runtime.shadow.telling import Teller

COLUMNS = tuple(f"c{number}" for number in range(12))
SIGNATURE = Signature(
    (TensorSpec("features", "FP32", (-1, 12)), TensorSpec("category", "BYTES", (-1, 1))),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))),
    batched=True,
)
ABOUT = About({"features": COLUMNS}, Rule("probabilities", None, (("block", 0.82), ("step_up", 0.6)), "allow"))
TICK = 0.02


class Pod:
    """A tap of a revision, and the processor time that it takes."""

    def __init__(self, revision: str) -> None:
        self.add: Any = None
        self.opened = asyncio.Event()
        teller = Teller(SIGNATURE, ABOUT)
        self.tap = Tap(revision, teller.columns, self._attach, teller.scoring)
        self._front = TapFront(self.tap, teller, Admission(("127.0.0.1",)))
        self.seconds = 0.0

    def _attach(self, add: Any) -> None:
        self.add = add
        self.opened.set()

    def handle(self, exchange: Exchange) -> None:
        began = time.process_time()
        self._front.handle(exchange)
        self.seconds += time.process_time() - began

    def refused(self, target: bytes, status: int) -> None:
        """Nothing to count."""

    async def listen(self) -> int:
        site = Site(self, Limits(connections=16, body_bytes=0))
        server = await asyncio.get_running_loop().create_server(lambda: connection(site), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])


def prediction(number: int, random: np.random.Generator, inputs: dict[str, Any], score: float) -> Prediction:
    """An answer of the fraud scorer."""
    outputs = [np.array([int(score > 0.5)]), np.array([[1 - score, score]], dtype=np.float32)]
    key, took = f"{number:08x}-b7e2-4a8f-9c1d-{number:012x}".encode(), 0.001 + random.random() / 500
    return Prediction(200, key, 0.0, 0.0, 0.0, 0.0, took, 1, inputs, ("label", "probabilities"), outputs)


def usage(pid: int) -> tuple[float, float]:
    """Processor seconds and peak resident MiB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak / 1024


def report(port: int) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/report", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


async def measure(rate: int, seconds: float, percent: int) -> int:
    """Runs it and prints the result; the exit code."""
    live, candidate = Pod("a"), Pod("b")
    ports = [await live.listen(), await candidate.listen()]
    environment = {
        **os.environ,
        "SERINUS_JOIN_LIVE": "a",
        "SERINUS_JOIN_CANDIDATE": "b",
        "SERINUS_HOST": "127.0.0.1",
        "SERINUS_METRICS_PORT": "0",
        "SERINUS_JOIN_PODS": ",".join(f"127.0.0.1:{port}" for port in ports),
    }
    joiner = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serinus_runtime", "join", env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert joiner.stderr is not None
    port = json.loads(await joiner.stderr.readline())["metrics_port"]
    await asyncio.gather(live.opened.wait(), candidate.opened.wait())
    random = np.random.default_rng(1)
    loop = asyncio.get_running_loop()
    began, before = time.monotonic(), usage(joiner.pid)[0]
    number = mirrored = 0
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * rate * 100 / percent)
        while number < due:
            features = random.normal(size=(1, 12)).astype(np.float32)
            inputs = {"features": features, "category": np.array([["toys"]], dtype=object)}
            score = float(random.random())
            live.add(prediction(number, random, inputs, score))
            if random.random() * 100 < percent:
                mirrored += 1
                candidate.add(prediction(number, random, inputs, min(1.0, score + 0.01)))
            number += 1
        await asyncio.sleep(TICK)
    found = await loop.run_in_executor(None, report, port)
    until = time.monotonic() + 30
    while found["pairs"] < mirrored and time.monotonic() < until:
        await asyncio.sleep(0.1)
        found = await loop.run_in_executor(None, report, port)
    spent, peak = usage(joiner.pid)
    joiner.terminate()
    await joiner.wait()
    cpu = spent - before
    took = time.monotonic() - began
    pairs, told = found["pairs"], number + mirrored
    each = f"{cpu / pairs * 1e6:.0f} us a pair, {cpu / number * 1e6:.0f} us a live request"
    lost = {reason: count for reason, count in found["unpaired"].items() if reason != "live_only"}
    print(f"{number} live requests, {mirrored} mirrored in {seconds:.0f} s; all joined after {took:.1f} s")
    print(f"joiner: {cpu:.2f} s of processor, {each}; {100 * cpu / took:.0f}% of a core; peak {peak:.0f} MiB")
    print(f"tap: {(live.seconds + candidate.seconds) / told * 1e6:.1f} us of processor a prediction told")
    print(f"unpaired: {found['unpaired']}")
    good = found["pairs"] == mirrored and not any(lost.values()) and cpu / found["pairs"] < 1e-3
    print(
        f"RESULT ok={int(good)} pairs={pairs} pairs_per_core_second={pairs / cpu:.0f} wanted=1000 peak_mib={peak:.0f}"
    )
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="What a shadow's joiner and tap cost.")
    parser.add_argument("--rate", type=int, default=1000, help="pairs per second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--percent", type=int, default=100, help="share of the live requests that is mirrored")
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.rate, arguments.seconds, arguments.percent))


if __name__ == "__main__":
    sys.exit(main())
