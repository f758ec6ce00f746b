"""Runs a fresh model before anybody else does, and finds out whether it really works in rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from serinus_runtime import logs
from serinus_runtime.costs import INLINE_SECONDS, Meter, Usage, thread_usage
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import CodeError, Engine, EngineError, Signature, synthetic_inputs
from serinus_runtime.examples import HOW, Examples
from serinus_runtime.failures import FailureError, Reason

_ROUNDS = 3
_MOST_ROUNDS = 12


def warm_up(
    engine: Engine,
    max_batch: int,
    preferred: Sequence[int] = (),
    lengths: Sequence[Mapping[str, tuple[int, int]]] = (),
    examples: Examples | None = None,
) -> Signature:
    """Runs synthetic inputs at one row and at `max_batch` rows; returns the signature with `batched` as found.

    `examples`, where the model brings some, are run instead, and before those of `lengths`. Python of the model's own
    that refuses synthetic inputs is told in the log and served as it is: they may be nonsense to it.

    `preferred`: sizes that are run as well; `lengths`: axis and size by input, each of which is run at every size, so
    that whatever an engine prepares for a shape is ready before the first request. A model that declares open rows but
    gives other ones is served one request at a time.
    Raises FailureError(WARMUP_FAILED).
    """
    signature = engine.signature
    outputs = [spec.name for spec in signature.outputs]
    sizes = {1, max_batch, *(size for size in preferred if size < max_batch)} if signature.batched else {1}
    shapes_to_run: list[tuple[int, Mapping[str, tuple[int, int]] | None, Examples | None]]
    shapes_to_run = [(rows, None, examples) for rows in sorted(sizes)] if examples is not None else []
    if examples is None or lengths:
        shapes_to_run += [(rows, known, None) for known in lengths or (None,) for rows in sorted(sizes)]
    for rows, known, shipped in shapes_to_run:
        inputs = shipped.at(signature, rows) if shipped is not None else synthetic_inputs(signature, rows, known)
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        try:
            for _ in range(_ROUNDS):
                answers = engine.run(inputs, outputs)
        except EngineError as error:
            if shipped is not None:
                text = f"the model loads but fails on {shipped.file}, its own examples, at {rows} rows: {error}"
                raise FailureError(Reason.WARMUP_FAILED, text) from error
            if isinstance(error, CodeError):
                logs.event(
                    "warning", f"the model's Python refuses the inputs made for it, and so it is not warm: {HOW}",
                    shapes=shapes, why=str(error)[:300],
                )  # fmt: skip
                return signature
            raise FailureError(
                Reason.WARMUP_FAILED,
                f"the model loads but fails on zeros of shape {shapes}: {error}; run it with these inputs "
                f"and export it again, or {HOW}",
            ) from error
        if signature.batched and any(answer.shape[:1] != (rows,) for answer in answers):
            found = {name: list(answer.shape) for name, answer in zip(outputs, answers, strict=True)}
            logs.event(
                "warning", "outputs do not follow the rows of the inputs: batching is off", rows=rows, outputs=found
            )
            return msgspec.structs.replace(signature, batched=False)
    return signature


def measure(
    engine: Engine,
    signature: Signature,
    max_batch: int,
    examples: Examples | None = None,
    usage: Usage = thread_usage,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """Seconds per batch at 1, 2, 4 ... up to `max_batch` rows: the best of a few runs on examples or random numbers.

    It ends at the first size that takes longer than a second or fails: the sizes that are missing are run away from the
    event loop, where nothing depends on them.
    """
    outputs = [spec.name for spec in signature.outputs]
    sizes = [1 << power for power in range(max(max_batch - 1, 0).bit_length() + 1)] if signature.batched else [1]
    found: dict[int, float] = {}
    for rows in sizes:
        size = min(rows, max_batch)
        inputs = random_inputs(synthetic_inputs(signature, size)) if examples is None else examples.at(signature, size)
        try:
            found[rows] = _best(partial(engine.run, inputs, outputs), Meter(usage), clock)
        except EngineError:
            break
        if found[rows] > 1.0:
            break
    return found


def _best(run: Callable[[], object], meter: Meter, clock: Callable[[], float]) -> float:
    """Seconds that `run` takes: the best of three runs that kept their core, for which at most twelve are made.

    Where none of them did, the best of all: a little too much rather than too little.
    """
    every: list[float] = []
    kept: list[float] = []
    while len(kept) < _ROUNDS and len(every) < _MOST_ROUNDS:
        meter.begin()
        started = clock()
        run()
        every.append(clock() - started)
        least = meter.end(every[-1])
        if not meter.disturbed:
            kept.append(least)
        elif len(every) >= _ROUNDS and least > INLINE_SECONDS:
            # Long ones lose their core again and again, and it is clear enough where they run.
            break
    return min(kept or every)


def random_inputs(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Numbers that differ: on zeros every tree takes the same short way, and the processor guesses every branch."""
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }
