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
from serinus_runtime.growth import affordable, grown

_ROUNDS = 3
_MOST_ROUNDS = 12
_UNPROVED = (
    "it is served without having answered once, and nobody knows that it can: the model's Python refuses the inputs "
    "made for its warm-up"
)
_NOT_WARM = "the model's Python refuses inputs of these lengths made for it, and so they are not warm"


class Warmed(msgspec.Struct, frozen=True):
    """What warm-up found. `signature` has `batched` as it is; `unproved`: what nobody knows, and what to ship."""

    signature: Signature
    unproved: str = ""


def warm_up(
    engine: Engine,
    max_batch: int,
    preferred: Sequence[int] = (),
    lengths: Sequence[Mapping[str, tuple[int, int]]] = (),
    examples: Examples | None = None,
) -> Warmed:
    """Runs synthetic inputs at one row and at `max_batch` rows.

    `examples`, where the model brings some, are run instead, and before those of `lengths`. Python of the model's own
    that refuses synthetic inputs may be right to: they may be nonsense to it. Then the parts of `engine` are run
    without it, the log tells, and so does `unproved`.

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
                why = str(error)[:300]
                signature = _warm_parts(engine, signature, max_batch, preferred)
                if shapes_to_run[0][2] is not None:
                    logs.event("warning", _NOT_WARM, shapes=shapes, why=why)
                    return Warmed(signature)
                logs.event("warning", f"{_UNPROVED}: {HOW}", shapes=shapes, why=why)
                return Warmed(signature, f"{_UNPROVED} ({why}): {HOW}")
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
            return Warmed(msgspec.structs.replace(signature, batched=False))
    return Warmed(signature)


def _warm_parts(engine: Engine, signature: Signature, max_batch: int, preferred: Sequence[int]) -> Signature:
    """Warms up what is inside `engine`; what is not batched there is not batched as a whole.

    Raises FailureError for a part that fails, unless sizes that only real inputs know may be why.
    """
    for part in engine.parts:
        try:
            found = warm_up(part, max_batch, preferred).signature
        except FailureError as error:
            if all(-1 not in spec.shape[1:] for spec in part.signature.inputs):
                raise
            logs.event("warning", "a part of the model is not warm", why=error.message[:300])
            continue
        if found != part.signature:
            signature = msgspec.structs.replace(signature, batched=False)
    return signature


def measure(
    engine: Engine,
    signature: Signature,
    max_batch: int,
    examples: Examples | None = None,
    usage: Usage = thread_usage,
    clock: Callable[[], float] = time.perf_counter,
    *,
    grows: bool = False,
) -> dict[int, float]:
    """Seconds per batch at 1, 2, 4 ... up to `max_batch` rows: the best of a few runs on examples or random numbers.

    It ends at the first size that takes longer than a second or fails: the sizes that are missing are run away from the
    event loop, where nothing depends on them. `grows`: larger sizes are tried as well, see `growth`.
    """
    outputs = [spec.name for spec in signature.outputs]

    def seconds(size: int) -> float:
        inputs = random_inputs(synthetic_inputs(signature, size)) if examples is None else examples.at(signature, size)
        return _best(partial(engine.run, inputs, outputs), Meter(usage), clock)

    def more(size: int) -> float | None:
        try:
            return seconds(size) if affordable(signature, size) else None
        except EngineError:
            return None

    sizes = [1 << power for power in range(max(max_batch - 1, 0).bit_length() + 1)] if signature.batched else [1]
    found: dict[int, float] = {}
    for rows in sizes:
        try:
            found[rows] = seconds(min(rows, max_batch))
        except EngineError:
            break
        if found[rows] > 1.0:
            break
    return grown(found, max_batch, more) if grows and signature.batched else found


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
