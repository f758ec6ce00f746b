"""Inputs whose rows differ in length: padded, so that they can share a batch, and answers cut back.

`model.json` says which: `"ragged": {"tokens": {"axis": 1, "pad": 0, "buckets": [32, 64, 128]}}`. Lengths are padded to
the next bucket, so that the engine sees few shapes; without buckets, to the longest in the batch, and only those join
whose lengths lie between the same powers of two, so that at most half of a batch is padding. A request that is longer
than the last bucket goes as it is, with others of its length.

An output is cut back to a request's own length where the model leaves that axis open and it came out as long as the
padded input. Whether padding changes the other answers is the model's business: give it a mask that is ragged too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine.base import Signature
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.tickets import Run, Ticket, run_batch

_FILE = "model.json"
_MAX_BUCKETS = 64


class Side(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one input is padded."""

    axis: int = 1
    pad: float | int | str | bool = 0
    buckets: tuple[int, ...] = ()


class Ragged:
    """The ragged inputs of one model."""

    def __init__(self, sides: Mapping[str, Side], signature: Signature) -> None:
        """Raises ValueError when the model's signature does not allow it."""
        specs = {spec.name: spec for spec in signature.inputs}
        if not signature.batched:
            raise ValueError("the model does not work in rows")
        for name, side in sides.items():
            spec = specs.get(name)
            if spec is None:
                raise ValueError(f"the model has no input {name!r}; it takes {', '.join(specs)}")
            if not 0 < side.axis < len(spec.shape) or spec.shape[side.axis] != -1:
                raise ValueError(f"axis {side.axis} of input {name!r}, of shape {list(spec.shape)}, is not open")
            if list(side.buckets) != sorted(set(side.buckets)) or len(side.buckets) > _MAX_BUCKETS:
                raise ValueError(f"the buckets of {name!r} must rise, and be at most {_MAX_BUCKETS}")
            if side.buckets and side.buckets[0] < 1:
                raise ValueError(f"the buckets of {name!r} must be above 0")
            try:
                np.full(1, side.pad, NUMPY[spec.datatype])
            except (ValueError, OverflowError, TypeError):
                raise ValueError(f"{side.pad!r} is no {spec.datatype}, which input {name!r} takes") from None
            if (spec.datatype == "BYTES") != isinstance(side.pad, str):
                raise ValueError(f"{side.pad!r} cannot pad {spec.datatype}, which input {name!r} takes")
        self._sides = dict(sides)
        self._outputs = {spec.name: spec.shape for spec in signature.outputs}

    def lengths(self) -> list[dict[str, tuple[int, int]]]:
        """What warm-up should try: axis and size by input, for each bucket, the n-th of all inputs together."""
        most = max(len(side.buckets) for side in self._sides.values())
        return [
            {
                name: (side.axis, side.buckets[min(index, len(side.buckets) - 1)] if side.buckets else 1)
                for name, side in self._sides.items()
            }
            for index in range(most)
        ]

    def key(self, inputs: Mapping[str, Array]) -> Hashable:
        """What only requests with the same may join."""
        found = []
        for name, array in inputs.items():
            shape = array.shape[1:]
            side = self._sides.get(name)
            if side is not None:
                at = side.axis - 1
                shape = (*shape[:at], _room(side, shape[at]), *shape[at + 1 :])
            found.append(shape)
        return tuple(found)

    def run_batch(self, run: Run, batch: Sequence[Ticket]) -> None:
        """`tickets.run_batch` on padded inputs; every ticket gets its own lengths back."""
        targets = {name: self._target(name, side, batch) for name, side in self._sides.items()}
        originals = [ticket.inputs for ticket in batch]
        try:
            for ticket in batch:
                ticket.inputs = {
                    name: _padded(array, self._sides[name], targets[name]) if name in targets else array
                    for name, array in ticket.inputs.items()
                }
            run_batch(run, batch)
        finally:
            for ticket, inputs in zip(batch, originals, strict=True):
                ticket.inputs = inputs
        for ticket in batch:
            ticket.batch = None
            if isinstance(ticket.result, list):
                ticket.result = [
                    self._cut(self._outputs.get(name, ()), array, ticket.inputs, targets)
                    for name, array in zip(ticket.outputs, ticket.result, strict=True)
                ]

    def _target(self, name: str, side: Side, batch: Sequence[Ticket]) -> int:
        longest = max(ticket.inputs[name].shape[side.axis] for ticket in batch)
        return _room(side, longest) if side.buckets else longest

    def _cut(
        self, shape: Sequence[int], array: Array, inputs: Mapping[str, Array], targets: Mapping[str, int]
    ) -> Array:
        for name, target in targets.items():
            axis = self._sides[name].axis
            length = inputs[name].shape[axis]
            if length != target and array.ndim > axis and array.shape[axis] == target and _open(shape, axis):
                array = array[(slice(None),) * axis + (slice(length),)]
        return array


class _Told(msgspec.Struct):
    ragged: dict[str, Side] = {}


def open_ragged(directory: Path, signature: Signature) -> Ragged | None:
    """What `model.json` in `directory` says of ragged inputs. Raises FailureError when that cannot be."""
    path = directory / _FILE
    try:
        text = path.read_bytes() if path.is_file() else b""
        if b'"ragged"' not in text:
            return None
        sides = msgspec.json.decode(text, type=_Told).ragged
        return Ragged(sides, signature) if sides else None
    except (OSError, ValueError, RecursionError) as error:
        raise FailureError(Reason.MODEL_LOAD_FAILED, f"{_FILE}: ragged: {error}") from error


def _room(side: Side, length: int) -> int:
    """The length that `length` is padded to at most."""
    if not side.buckets:
        return 1 << max(length - 1, 0).bit_length() if length else 0
    at = bisect_left(side.buckets, length)
    return side.buckets[at] if at < len(side.buckets) else length


def _padded(array: Array, side: Side, target: int) -> Array:
    length = array.shape[side.axis]
    if length == target:
        return array
    shape = (*array.shape[: side.axis], target, *array.shape[side.axis + 1 :])
    made: Any = np.full(shape, side.pad, dtype=array.dtype)
    made[(slice(None),) * side.axis + (slice(length),)] = array
    return made  # type: ignore[no-any-return]


def _open(shape: Sequence[int], axis: int) -> bool:
    # Many exporters leave the shape of an output out altogether.
    return not shape or shape[axis : axis + 1] == (-1,)
