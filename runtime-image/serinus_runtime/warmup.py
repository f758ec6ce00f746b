"""Runs a fresh model before anybody else does, and finds out whether it really works in rows."""

from __future__ import annotations

import msgspec

from serinus_runtime import logs
from serinus_runtime.engine import Engine, EngineError, Signature, synthetic_inputs
from serinus_runtime.failures import FailureError, Reason

_ROUNDS = 3


def warm_up(engine: Engine, max_batch: int) -> Signature:
    """Runs synthetic inputs at one row and at `max_batch` rows; returns the signature with `batched` as found.

    A model that declares open rows but gives other ones is served one request at a time.
    Raises FailureError(WARMUP_FAILED).
    """
    signature = engine.signature
    outputs = [spec.name for spec in signature.outputs]
    sizes = [1, max_batch] if signature.batched and max_batch > 1 else [1]
    for rows in sizes:
        inputs = synthetic_inputs(signature, rows)
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        try:
            for _ in range(_ROUNDS):
                answers = engine.run(inputs, outputs)
        except EngineError as error:
            raise FailureError(
                Reason.WARMUP_FAILED,
                f"the model loads but fails on zeros of shape {shapes}: {error}; run it with these inputs "
                f"and export it again",
            ) from error
        if signature.batched and any(answer.shape[:1] != (rows,) for answer in answers):
            found = {name: list(answer.shape) for name, answer in zip(outputs, answers, strict=True)}
            logs.event(
                "warning", "outputs do not follow the rows of the inputs: batching is off", rows=rows, outputs=found
            )
            return msgspec.structs.replace(signature, batched=False)
    return signature
