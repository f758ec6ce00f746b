"""The common request, read in one pass: JSON with flat lists of numbers for a model that takes FP32 or FP64.

What is not exactly that - nested data, binary tensors, chosen outputs, anything wrong - is left to the full codec,
which knows what to say about it. A request that is read here is read there with the same result.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature
from serinus_runtime.fast import PREFIX_BYTES, floats, known_body
from serinus_runtime.inputhash import kind
from serinus_runtime.joined import Joined, woven
from serinus_runtime.plainforms import decode

_FORMATS = {"FP32": "f", "FP64": "d"}
_MAX_ELEMENTS = 4096
"""More than these are converted by numpy: a list on the stack of a call has its limits."""


_encoder = msgspec.json.Encoder()
_ndarray: Final = np.ndarray
_DATA = b'"data":'
_SUFFIX_BYTES = 512
_FORMS = 128
_PATIENCE = 4096
"""So many requests are looked at for what surrounds their numbers: clients that put an id into each gain nothing."""
Read = tuple[str | None, dict[str, Array], int, bytes, bytes]
"""Request id, inputs, rows; the bytes of the only input, and what comes before them in its hash, where known."""


class _Form:
    """What surrounds the numbers of a request, and what it means."""

    __slots__ = ("array_shape", "dtype", "id", "kind", "name", "rows")

    def __init__(self, request_id: str | None, name: str, array: Array, rows: int) -> None:
        self.id = request_id
        self.name = name
        self.array_shape = array.shape
        self.dtype = array.dtype
        self.rows = rows
        self.kind = kind(name, array.dtype.char, array.shape)


class FastReader:
    """Reads what it can for one model; `usable` is False where that is nothing.

    Clients send bodies that differ in nothing but the numbers. What stands before and behind them is decoded once;
    after that, equal bytes around a list of as many numbers mean an equal request with other numbers.
    """

    def __init__(self, signature: Signature) -> None:
        self._batched = signature.batched
        self._specs = {
            spec.name: (spec.datatype, spec.shape, NUMPY[spec.datatype], _FORMATS.get(spec.datatype, ""))
            for spec in signature.inputs
        }
        self._forms: dict[bytes, tuple[int, bool, bytes, _Form]] = {}
        self._patience = _PATIENCE
        self.usable = bool(self._specs) and all(spec.datatype in _FORMATS for spec in signature.inputs)

    def read(self, body: bytes) -> Read | None:
        """The request in `body`, or None when the full codec must look at it."""
        found = known_body(body, self._forms)
        if found is not None:
            form: _Form = found[0]
            array: Array = _ndarray(form.array_shape, form.dtype, found[1])
            return form.id, {form.name: array}, form.rows, found[1], form.kind
        read = self._decoded(body)
        if read is not None and len(read[1]) == 1 and self._patience > 0:
            at = body.find(_DATA, 0, PREFIX_BYTES)
            start = body.find(b"[", at + len(_DATA), at + len(_DATA) + 2) if at > 0 else -1
            if start > 0:
                self._learn(body, start, read)
        return read

    def _learn(self, body: bytes, start: int, read: Read) -> None:
        """Keeps what surrounds the numbers at `start`, if it is certain that they are the tensor's.

        The key `data` is nowhere else, and nothing is written with backslashes.
        """
        self._patience -= 1
        request_id, inputs, rows, _, _ = read
        ((name, array),) = inputs.items()
        found = floats(body, start, array.size, array.dtype.itemsize == 8)
        if found is None or found[0] != array.tobytes():
            return
        prefix, suffix = body[:start], body[found[1] :]
        if len(suffix) > _SUFFIX_BYTES or (prefix + suffix).count(b'"data"') != 1 or b"\\" in prefix + suffix:
            return
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        form = _Form(request_id, name, array, rows)
        self._forms[prefix] = (array.size, array.dtype.itemsize == 8, suffix, form)

    def _decoded(self, body: bytes) -> Read | None:
        try:
            request = decode(body)
            given = request.inputs
            if len(given) != len(self._specs) or request.outputs is not None or request.parameters is not None:
                return None
            rows = given[0].shape[0] if self._batched else 1
            inputs: dict[str, Array] = {}
            for tensor in given:
                datatype, wanted, dtype, letter = self._specs[tensor.name]
                shape = tensor.shape
                if tensor.datatype != datatype or len(shape) != len(wanted) or tensor.parameters is not None:
                    return None
                count = 1
                for size, want in zip(shape, wanted, strict=True):
                    if size != want and want != -1:
                        return None
                    count *= size
                data = tensor.data
                if len(data) != count or not 0 < count <= _MAX_ELEMENTS or min(shape) < 1:
                    return None
                if self._batched and shape[0] != rows:
                    return None
                inputs[tensor.name] = np.ndarray(shape, dtype, _packer(count, letter).pack(*data))
        except (
            msgspec.DecodeError,
            KeyError,
            IndexError,
            OverflowError,
            struct.error,
            UnicodeDecodeError,
            RecursionError,
        ):
            return None
        if len(inputs) != len(self._specs):
            return None
        if len(inputs) > 1:
            inputs = {name: inputs[name] for name in self._specs}
        return request.id, inputs, rows, b"", b""


@lru_cache(maxsize=256)
def _packer(count: int, letter: str) -> struct.Struct:
    return struct.Struct(f"={count}{letter}")


class Writer:
    """Writes answers from fragments that are made once: `{"name":...,"datatype":...,"shape":` per output."""

    def __init__(self, head: bytes, heads: Mapping[str, bytes]) -> None:
        self._head = head
        self._heads = heads

    def write(self, request_id: str | None, names: Sequence[str], results: Sequence[Array]) -> bytes:
        """The answer's body: the outputs `names`, which are `results`."""
        parts = [self._head]
        if request_id is not None:
            parts += (b',"id":', _encoder.encode(request_id))
        before = b',"outputs":['
        for name, array in zip(names, results, strict=True):
            values = [array.item()] if array.size == 1 else array.ravel().tolist()
            parts += (before, self._heads[name], _shape(array.shape), _encoder.encode(values))
            before = b"},"
        parts.append(b"}]}" if names else b',"outputs":[]}')
        return b"".join(parts)

    def rows(self, batch: Joined) -> list[bytes]:
        """What `write` gives without an id for each row of `batch` alone."""
        befores: list[bytes] = []
        columns: list[list[bytes]] = []
        before = self._head + b',"outputs":['
        for index, name in enumerate(batch.names):
            befores.append(before + self._heads[name] + _shape((1, *batch.answers[index].shape[1:])) + b"[")
            columns.append(batch.values(index))
            before = b"]},"
        return woven(befores, columns, b"]}]}")


@lru_cache(maxsize=1024)
def _shape(shape: tuple[int, ...]) -> bytes:
    return _encoder.encode(shape) + b',"data":'
