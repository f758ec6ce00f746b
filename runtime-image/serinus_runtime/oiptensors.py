"""The elements of one input of an Open Inference Protocol request: from JSON, or from the raw bytes behind it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from serinus_runtime import bfloat16
from serinus_runtime.binary import from_raw
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import TensorSpec
from serinus_runtime.oipforms import Input
from serinus_runtime.problems import InvalidRequestError, located, reshaped

_MAX_NESTING = 16
_ELEMENTS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float, "O": str}


class Tail:
    """The raw bytes behind the JSON of a binary request, taken in the order of the inputs."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._at = 0

    def take(self, name: str, size: object) -> memoryview:
        """The next `size` bytes, those of input `name`. Raises InvalidRequestError."""
        if type(size) is not int or size < 0:
            raise InvalidRequestError(f"input {name!r}: binary_data_size must be a whole number, not {size!r:.60}")
        left = len(self._raw) - self._at
        if size > left:
            raise InvalidRequestError(f"input {name!r}: binary_data_size is {size}, but only {left} bytes follow")
        start, self._at = self._at, self._at + size
        return self._raw[start : self._at]

    def end(self) -> None:
        """Raises InvalidRequestError when bytes are left."""
        if self._at != len(self._raw):
            raise InvalidRequestError(
                f"{len(self._raw) - self._at} bytes of binary data belong to no input: the sum of binary_data_size is "
                f"{self._at}, but {len(self._raw)} bytes follow the JSON"
            )


def _data_decoder(kind: str, depth: int) -> msgspec.json.Decoder[Any]:
    element: Any = _ELEMENTS[kind]
    for _ in range(depth):
        element = list[element]
    return msgspec.json.Decoder(element)


_data_decoders = {kind: [_data_decoder(kind, depth) for depth in range(_MAX_NESTING + 1)] for kind in _ELEMENTS}


def elements(spec: TensorSpec, given: Input, tail: Tail | None) -> Array:
    """The array of the input `given`, whose datatype and shape are checked already. Raises InvalidRequestError."""
    data = given.data
    if given.parameters is not None:
        if "shared_memory_region" in given.parameters:
            raise InvalidRequestError(f"input {spec.name!r}: shared memory is not supported; send the data")
        if "binary_data_size" in given.parameters:
            return _binary_array(spec, given, tail)
    if isinstance(data, msgspec.UnsetType):
        raise InvalidRequestError(f"input {spec.name!r}: data is missing, and so is the parameter binary_data_size")
    dtype = NUMPY[spec.datatype]
    text = bytes(data)
    depth = _nesting(text)
    if depth == 0 or depth > _MAX_NESTING:
        raise InvalidRequestError(f"input {spec.name!r}: data must be an array, flat or nested as the shape says")
    try:
        values = _data_decoders[dtype.kind][depth].decode(text)
    except msgspec.ValidationError as error:
        where = located(str(error), f"data of input {spec.name!r}", f"data of input {spec.name!r}")
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
        if spec.datatype == bfloat16.NAME:
            array = bfloat16.rounded(array)
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
    return reshaped(spec.name, array, shape)


def _binary_array(spec: TensorSpec, given: Input, tail: Tail | None) -> Array:
    if not isinstance(given.data, msgspec.UnsetType):
        raise InvalidRequestError(f"input {spec.name!r}: both data and binary_data_size are given; send one of them")
    if tail is None:
        raise InvalidRequestError(
            f"input {spec.name!r}: binary_data_size is given, but the header Inference-Header-Content-Length is missing"
        )
    assert given.parameters is not None
    return from_raw(spec.name, spec.datatype, given.shape, tail.take(spec.name, given.parameters["binary_data_size"]))


def _nesting(text: bytes) -> int:
    depth = 0
    for byte in text:
        if byte == 0x5B:
            depth += 1
        elif byte not in b" \t\r\n":
            break
    return depth
