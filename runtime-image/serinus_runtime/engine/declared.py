"""Signatures that `model.json` declares, for formats that have no names: TorchScript and handlers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine.base import EngineError, Signature, TensorSpec
from serinus_runtime.failures import FailureError, Reason

FILE = "model.json"
_MAX_BYTES = 1 << 20
_EXAMPLE = (
    '{"signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 30]}], '
    '"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]}}'
)


class HandlerStyle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`handler` in model.json: how rows become the requests that a TorchServe handler knows."""

    body: str = "instances"
    """`instances`: all rows as one request `{"instances": [...]}`; `row`: one request per row, as JSON; `binary`: one
    request per row, the bytes of its only input."""


def read(directory: Path) -> tuple[Signature | None, HandlerStyle]:
    """What `model.json` in `directory` declares. Raises FailureError(MODEL_LOAD_FAILED) when it cannot be used."""
    path = directory / FILE
    if not path.is_file():
        return None, HandlerStyle()
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")  # noqa: TRY301
        told = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        style = msgspec.convert(told.get("handler") or {}, HandlerStyle)
        if style.body not in ("instances", "row", "binary"):
            raise ValueError(f"handler.body is {style.body!r}; write instances, row or binary")  # noqa: TRY301
        signature = told.get("signature")
        return (None if signature is None else _signature(signature)), style
    except (OSError, ValueError, RecursionError) as error:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED, f"{path} cannot be used: {error}; write such as {_EXAMPLE}"
        ) from error


def missing(directory: Path, what: str) -> FailureError:
    """The failure of a model without names that declares none."""
    return FailureError(
        Reason.MODEL_LOAD_FAILED,
        f"{what} has no names or shapes of its own: declare them in {directory / FILE}, such as {_EXAMPLE}",
    )


def convert(told: object) -> Signature:
    """A signature from its JSON form. Raises ValueError."""
    return _signature(told)


def _signature(told: object) -> Signature:
    declared = msgspec.convert(told, _Declared)
    if not declared.inputs or not declared.outputs:
        raise ValueError("the signature needs at least one input and one output")
    for spec in (*declared.inputs, *declared.outputs):
        if spec.datatype not in NUMPY:
            raise ValueError(f"{spec.name!r} has the datatype {spec.datatype!r}; there are {', '.join(NUMPY)}")
        if not spec.name or any(size < -1 for size in spec.shape):
            raise ValueError(f"{spec.name!r} needs a name and a shape of sizes, where -1 stands for any")
    for specs in (declared.inputs, declared.outputs):
        if len({spec.name for spec in specs}) != len(specs):
            raise ValueError("a name comes twice")
    batched = all(spec.shape[:1] == (-1,) for spec in (*declared.inputs, *declared.outputs))
    return Signature(declared.inputs, declared.outputs, batched)


def check(arrays: Sequence[Array], names: Sequence[str], signature: Signature) -> list[Array]:
    """`arrays` if they are what `signature` declares for `names`. Raises EngineError that says what was declared."""
    specs = {spec.name: spec for spec in signature.outputs}
    for array, name in zip(arrays, names, strict=True):
        spec = specs[name]
        if array.dtype != NUMPY[spec.datatype]:
            raise EngineError(
                f"output {name!r} is declared {spec.datatype}, but the model gives {array.dtype}; correct {FILE}"
            )
        shape = array.shape
        if len(shape) != len(spec.shape) or any(
            size not in (-1, found) for size, found in zip(spec.shape, shape, strict=True)
        ):
            raise EngineError(
                f"output {name!r} is declared with the shape {list(spec.shape)}, but the model gives {list(shape)}; "
                f"correct {FILE}"
            )
    return list(arrays)


class _Declared(msgspec.Struct, forbid_unknown_fields=True):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
