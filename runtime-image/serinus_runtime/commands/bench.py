"""`serinus-runtime bench`: what the model costs in this process by batch size and threads, and what to set.

Median of a few runs on random inputs, the thread counts one after the other. It says what the engine costs; what a
request costs beside that, a load test says.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from serinus_runtime.commands.data import DataError, batches, read_inputs
from serinus_runtime.commands.model import Opened, opened
from serinus_runtime.commands.tell import Format, table
from serinus_runtime.costs import INLINE_SECONDS
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import synthetic_inputs
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.warmup import random_inputs

_WORTH = 1.3
"""Batching, or threads, are recommended from this gain in rows per second on."""
_ENOUGH = 0.9
"""The smallest batch that reaches this share of the best throughput is recommended."""


class Cost(msgspec.Struct, frozen=True):
    """Seconds per batch of `rows` rows with `threads` threads: the median."""

    threads: int
    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


class Advice(msgspec.Struct, frozen=True):
    """What to set."""

    batch_max_size: int
    threads: int
    gain: float
    """Rows per second at that size over those of single rows."""
    inline: bool
    """True when such a batch is short enough to run on the event loop."""


def advise(costs: Sequence[Cost]) -> Advice:
    """Reads the table. Each doubling of the threads must gain 1.3 times: they are taken from other replicas."""
    threads = min(cost.threads for cost in costs)
    for more in sorted({cost.threads for cost in costs}):
        best = max(cost.rate for cost in costs if cost.threads == threads)
        if max(cost.rate for cost in costs if cost.threads == more) > best * _WORTH * more / threads / 2:
            threads = more
    chosen = sorted((cost for cost in costs if cost.threads == threads), key=lambda cost: cost.rows)
    best = max(cost.rate for cost in chosen)
    size = next(cost for cost in chosen if cost.rate >= _ENOUGH * best)
    gain = size.rate / chosen[0].rate
    if gain < _WORTH:
        size, gain = chosen[0], 1.0
    return Advice(size.rows, threads, gain, size.seconds <= INLINE_SECONDS)


def measure(
    run: Callable[[], object], seconds: float, *, least: int = 5, now: Callable[[], float] = time.perf_counter
) -> float:
    """The median time of `run`, called for about `seconds` and at least `least` times after one that does not count."""
    run()
    until = now() + seconds
    times: list[float] = []
    while len(times) < least or now() < until:
        started = now()
        run()
        times.append(now() - started)
    return statistics.median(times)


def run(arguments: argparse.Namespace) -> int:
    """Measures, shows the table, the advice and one RESULT line."""
    costs = []
    for threads in _threads(arguments.threads):
        with opened(arguments.directory, threads=threads, max_batch=arguments.max_batch) as model:
            names = [spec.name for spec in model.signature.outputs]
            sizes = [1 << n for n in range(arguments.max_batch.bit_length())] if model.signature.batched else [1]
            for rows in sizes:
                once = partial(model.engine.run, _inputs(arguments.data, model, rows), names)
                costs.append(Cost(threads, rows, measure(once, arguments.seconds)))
    advice = advise(costs)
    result = {"advice": advice, "costs": costs, "cores": os.cpu_count()}
    if arguments.output is Format.JSON:
        print(msgspec.json.encode(result).decode())
        return 0
    first = {cost.threads: cost for cost in costs if cost.rows == 1}
    shown = [
        (cost.threads, cost.rows, f"{cost.seconds * 1e3:.3f}", f"{cost.seconds / cost.rows * 1e6:.1f}",
         f"{cost.rate:,.0f}", f"{cost.rate / first[cost.threads].rate:.1f}x")
        for cost in costs
    ]  # fmt: skip
    print(table(("threads", "rows", "ms", "us a row", "rows/s", "gain"), shown))
    where = "on the event loop, no delay is needed" if advice.inline else "on a thread"
    print(
        f"\nSERINUS_BATCH_MAX_SIZE={advice.batch_max_size} SERINUS_THREADS={advice.threads}: "
        + (f"{advice.gain:.1f} times the rows of single requests" if advice.gain > 1 else "batching gains nothing")
        + f"; runs {where}"
    )
    print(f"RESULT {msgspec.json.encode(result).decode()}")
    return 0


def _threads(asked: str) -> list[int]:
    try:
        found = sorted({int(part) for part in asked.split(",")})
    except ValueError:
        found = []
    if not found or not 1 <= found[0] <= found[-1] <= 1024:
        raise FailureError(Reason.INVALID_CONFIG, f"--threads {asked!r}: write numbers such as 1,2,4")
    return found


def _inputs(data: Path | None, model: Opened, rows: int) -> dict[str, Array]:
    if data is None:
        return random_inputs(synthetic_inputs(model.signature, rows))
    try:
        inputs, count = read_inputs(data, model.signature, model.about)
    except (OSError, DataError) as error:
        raise FailureError(Reason.INVALID_CONFIG, str(error)) from error
    if count < rows:
        raise FailureError(Reason.INVALID_CONFIG, f"{data}: {count} rows; write more, or a smaller --max-batch")
    return next(batches(inputs, count, rows))
