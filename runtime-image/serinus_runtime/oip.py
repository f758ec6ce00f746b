"""Open Inference Protocol v2 over JSON: requests to arrays, arrays to answers, and metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature, TensorSpec

_MAX_NESTING = 16
_ELEMENTS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float, "O": str}


class InvalidRequestError(Exception):
    """The request cannot be answered as it is; the text names the field, what was expected and what came."""


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, gc=False):
    """A checked request: arrays for every input of the model, rows along axis 0 (1 where the model has no rows)."""

    id: str | None
    inputs: dict[str, Array]
    rows: int
    outputs: tuple[str, ...]


_request_decoder = msgspec.json.Decoder(_Request)
_encoder = msgspec.json.Encoder()


def _data_decoder(kind: str, depth: int) -> msgspec.json.Decoder[Any]:
    element: Any = _ELEMENTS[kind]
    for _ in range(depth):
        element = list[element]
    return msgspec.json.Decoder(element)


_data_decoders = {kind: [_data_decoder(kind, depth) for depth in range(_MAX_NESTING + 1)] for kind in _ELEMENTS}


class InferCodec:
    """Checks requests against one model's signature, and writes its answers."""

    def __init__(self, model: str, version: str, signature: Signature) -> None:
        self._signature = signature
        self._inputs = {spec.name: spec for spec in signature.inputs}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._all_outputs = tuple(self._outputs)
        self._head = b'{"model_name":' + _encoder.encode(model) + b',"model_version":' + _encoder.encode(version)
        self._output_heads = {
            spec.name: b'{"name":'
            + _encoder.encode(spec.name)
            + b',"datatype":"'
            + spec.datatype.encode()
            + b'","shape":'
            for spec in signature.outputs
        }

    def decode(self, body: bytes) -> InferRequest:
        """The request in `body`. Raises InvalidRequestError."""
        try:
            request = _request_decoder.decode(body)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(_located(str(error), "$", "the request")) from None
        except msgspec.DecodeError as error:
            raise InvalidRequestError(f"the body is not JSON: {error}") from None
        except (UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError(f"the body cannot be read: {error}") from None
        inputs: dict[str, Array] = {}
        rows: int | None = None
        for given in request.inputs:
            name = given.name
            spec = self._inputs.get(name)
            if spec is None:
                raise InvalidRequestError(
                    f"input {name!r}: the model has no such input; it takes {_names(self._inputs)}"
                )
            if name in inputs:
                raise InvalidRequestError(f"input {name!r} is given twice")
            self._check(spec, given)
            if self._signature.batched:
                if rows is None:
                    rows = given.shape[0]
                elif rows != given.shape[0]:
                    raise InvalidRequestError(
                        f"input {name!r}: shape {given.shape} has {given.shape[0]} rows, but "
                        f"{request.inputs[0].name!r} has {rows}"
                    )
            inputs[name] = _array(spec, given)
        if len(inputs) != len(self._inputs):
            missing = [name for name in self._inputs if name not in inputs]
            raise InvalidRequestError(f"input {missing[0]!r} is missing; the model needs {_names(self._inputs)}")
        if len(inputs) > 1:
            inputs = {name: inputs[name] for name in self._inputs}
        return InferRequest(request.id, inputs, 1 if rows is None else rows, self._chosen(request.outputs))

    def _chosen(self, outputs: list[_Output] | None) -> tuple[str, ...]:
        if not outputs:
            return self._all_outputs
        for output in outputs:
            if output.name not in self._outputs:
                raise InvalidRequestError(
                    f"output {output.name!r}: the model has no such output; it gives {_names(self._outputs)}"
                )
        return tuple(dict.fromkeys(output.name for output in outputs))

    def _check(self, spec: TensorSpec, given: _Input) -> None:
        if given.datatype != spec.datatype:
            raise InvalidRequestError(
                f"input {spec.name!r}: datatype {given.datatype!r}, but the model takes {spec.datatype}"
            )
        shape = given.shape
        if len(shape) != len(spec.shape) or any(
            (got < 0) if want == -1 else (got != want) for got, want in zip(shape, spec.shape, strict=True)
        ):
            raise InvalidRequestError(
                f"input {spec.name!r}: shape {shape}, but the model takes {list(spec.shape)} (-1 is any size)"
            )
        if self._signature.batched and shape[0] == 0:
            raise InvalidRequestError(f"input {spec.name!r}: shape {shape} has no rows; send at least one")

    def encode(self, request_id: str | None, outputs: Mapping[str, Array]) -> bytes:
        """The answer's body. NaN and infinities become null, which is all that JSON can say."""
        parts = [self._head]
        if request_id is not None:
            parts += (b',"id":', _encoder.encode(request_id))
        parts.append(b',"outputs":[')
        for index, (name, array) in enumerate(outputs.items()):
            if index:
                parts.append(b",")
            parts += (
                self._output_heads[name],
                _encoder.encode(array.shape),
                b',"data":',
                _encoder.encode(array.ravel().tolist()),
                b"}",
            )
        parts.append(b"]}")
        return b"".join(parts)

    def metadata(self, model: str, version: str, platform: str) -> bytes:
        """The body of the model's metadata answer."""

        def tensors(specs: tuple[TensorSpec, ...]) -> list[dict[str, object]]:
            return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]

        return _encoder.encode(
            {
                "name": model,
                "versions": [version],
                "platform": platform,
                "inputs": tensors(self._signature.inputs),
                "outputs": tensors(self._signature.outputs),
            }
        )


def _array(spec: TensorSpec, given: _Input) -> Array:
    dtype = NUMPY[spec.datatype]
    data = given.data
    if isinstance(data, msgspec.UnsetType):
        raise InvalidRequestError(f"input {spec.name!r}: data is missing (binary tensors are not supported: send JSON)")
    text = bytes(data)
    depth = _nesting(text)
    if depth == 0 or depth > _MAX_NESTING:
        raise InvalidRequestError(f"input {spec.name!r}: data must be an array, flat or nested as the shape says")
    try:
        values = _data_decoders[dtype.kind][depth].decode(text)
    except msgspec.ValidationError as error:
        where = _located(str(error), f"data of input {spec.name!r}", f"data of input {spec.name!r}")
        raise InvalidRequestError(f"{where}, for datatype {spec.datatype}") from None
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"input {spec.name!r}: data is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"input {spec.name!r}: data is not UTF-8: {error}") from None
    try:
        if dtype.itemsize < 8 and dtype.kind == "f":
            with np.errstate(over="raise"):
                array = np.array(values, dtype=dtype)
        else:
            array = np.array(values, dtype=dtype)
    except (OverflowError, FloatingPointError):
        raise InvalidRequestError(
            f"input {spec.name!r}: data has a value that does not fit in {spec.datatype}"
        ) from None
    except ValueError:
        raise InvalidRequestError(f"input {spec.name!r}: data is nested unevenly; the shape is {given.shape}") from None
    shape = tuple(given.shape)
    if array.shape == shape:
        return array
    if array.ndim != 1:
        raise InvalidRequestError(
            f"input {spec.name!r}: data is nested as {list(array.shape)}, but the shape is {given.shape}"
        )
    if array.size != math.prod(shape):
        raise InvalidRequestError(
            f"input {spec.name!r}: data has {array.size} elements, but the shape {given.shape} needs {math.prod(shape)}"
        )
    return array.reshape(shape)


def _nesting(text: bytes) -> int:
    depth = 0
    for byte in text:
        if byte == 0x5B:
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth


def _located(message: str, root: str, fallback: str) -> str:
    """msgspec's `Expected X, got Y - at `$.a`` turned around: `$.a: expected X, got Y`."""
    text, found, where = message.partition(" - at `")
    place = where.rstrip("`").replace("$", root, 1) if found else fallback
    return f"{place}: {text[:1].lower()}{text[1:]}"


def _names(specs: Mapping[str, TensorSpec]) -> str:
    names = [repr(name) for name in specs]
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
