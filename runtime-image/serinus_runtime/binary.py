"""Raw tensors of the protocol's binary extension: little-endian elements, BYTES with a four-byte length before each."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from serinus_runtime import bfloat16
from serinus_runtime.datatypes import NUMPY, WIRE_BYTES, Array
from serinus_runtime.problems import InvalidRequestError, reshaped

_LITTLE = {name: dtype.newbyteorder("<") for name, dtype in NUMPY.items()}
_NATIVE = sys.byteorder == "little"
MAX_STRINGS = 1 << 20
"""Elements of a BYTES tensor in one request: a four-byte empty string costs more in memory than on the wire."""


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: memoryview) -> Array:
    """The tensor in `raw`, without a copy where the bytes lie as the engine needs them.

    Raises InvalidRequestError when `raw` does not hold exactly what `shape` says.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return reshaped(name, _strings(name, count, raw), shape)
    dtype, size = _LITTLE[datatype], WIRE_BYTES[datatype]
    if count * size != len(raw):
        raise InvalidRequestError(
            f"input {name!r}: {len(raw)} bytes of binary data, but the shape {list(shape)} of {datatype} "
            f"needs {count * size}"
        )
    if datatype == "BOOL":
        # Any byte may come, and only 0 and 1 are a bool.
        return reshaped(name, np.frombuffer(raw, dtype=np.uint8) != 0, shape)
    if datatype == bfloat16.NAME:
        return reshaped(name, bfloat16.from_raw([count], raw), shape)
    array = np.frombuffer(raw, dtype=dtype)
    if not _NATIVE:
        array = array.astype(NUMPY[datatype])
    elif not array.flags.aligned:
        # As bytes it is one copy of memory; numpy would move unaligned elements one by one.
        array = np.empty(count, dtype)
        array.view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
    return reshaped(name, array, shape)


def _strings(name: str, count: int, raw: memoryview) -> Array:
    if count * 4 > len(raw):
        raise InvalidRequestError(
            f"input {name!r}: {len(raw)} bytes of binary data cannot hold {count} BYTES elements of four bytes or more"
        )
    if count > MAX_STRINGS:
        raise InvalidRequestError(f"input {name!r}: {count} BYTES elements; at most {MAX_STRINGS} are taken at once")
    data = bytes(raw)
    array = np.empty(count, dtype=object)
    at, end = 0, len(data)
    for index in range(count):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        if start > end or at > end:
            raise InvalidRequestError(
                f"input {name!r}: BYTES element {index} says that it ends at byte {at}, but there are {end} bytes"
            )
        try:
            array[index] = data[start:at].decode()
        except UnicodeDecodeError:
            raise InvalidRequestError(
                f"input {name!r}: BYTES element {index} is not UTF-8, which is all that ONNX strings hold"
            ) from None
    if at != end:
        raise InvalidRequestError(f"input {name!r}: {end - at} bytes are left over after {count} BYTES elements")
    return array


def to_raw(array: Array, datatype: str = "") -> bytes | memoryview:
    """The elements of `array` as the protocol sends them; numbers are not copied where they lie right already.

    `datatype` is needed only for BF16, whose arrays look like those of FP32.
    """
    if array.dtype.kind == "O":
        parts: list[bytes] = []
        for item in array.ravel().tolist():
            text = item.encode() if isinstance(item, str) else bytes(item)
            parts += (len(text).to_bytes(4, "little"), text)
        return b"".join(parts)
    if not array.size:
        return b""
    if datatype == bfloat16.NAME:
        return bfloat16.to_raw(array)
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data
