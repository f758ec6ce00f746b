"""Messages between the front and a worker: a JSON header and the raw bytes of arrays, over a stream socket.

8 bytes   length of the header, length of the payload (two little-endian unsigned 32-bit numbers)
header    JSON; `arrays` tells name, datatype (as in the Open Inference Protocol) and shape of each
payload   the arrays one after another, little-endian; an element of BYTES has its length in four bytes before it
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

_SIZES = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
MAX_FRAME = (1 << 32) - 1
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}") for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class ClosedError(ConnectionError):
    """The other side has gone."""


def send(sock: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
    """Sends one message. Raises ValueError for a dtype that has no name in the protocol, OSError when nobody reads."""
    buffers: list[Any] = []
    told: list[list[Any]] = []
    size = 0
    for name, array in (arrays or {}).items():
        datatype = NAMES.get(array.dtype)
        if datatype is None:
            raise ValueError(f"output {name!r} has the dtype {array.dtype}, which cannot be sent")
        raw: Any = _strings(array) if datatype == "BYTES" else np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        told.append([name, datatype, list(array.shape)])
        buffers.append(memoryview(raw))
        size += len(raw)
    head = json.dumps({**header, "arrays": told}).encode()
    if size > MAX_FRAME or len(head) > MAX_FRAME:
        raise ValueError(f"{size} bytes of arrays are more than a message can hold")
    _send_all(sock, [memoryview(_SIZES.pack(len(head), size) + head), *(each for each in buffers if len(each))])


def receive(sock: socket.socket, limit: int = MAX_FRAME) -> tuple[dict[str, Any], dict[str, Any]]:
    """The next message: header and arrays.

    Raises ClosedError at its end, ValueError when it is damaged or larger than `limit` bytes, OSError (a timeout).
    """
    head_size, size = _SIZES.unpack(_exactly(sock, _SIZES.size))
    if head_size + size > limit:
        raise ValueError(f"a message of {head_size + size} bytes; {limit} are allowed")
    header: dict[str, Any] = json.loads(bytes(_exactly(sock, head_size)))
    payload = _exactly(sock, size)
    arrays: dict[str, Any] = {}
    at = 0
    for name, datatype, shape in header.pop("arrays"):
        if datatype == "BYTES":
            arrays[name], at = _read_strings(payload, at, shape)
            continue
        dtype = DTYPES[datatype]
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(payload, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    return header, arrays


def _send_all(sock: socket.socket, parts: list[memoryview]) -> None:
    while parts:
        sent = sock.sendmsg(parts[:64])
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if sent:
            parts[0] = parts[0][sent:]


def _exactly(sock: socket.socket, size: int) -> bytearray:
    found = bytearray(size)
    view = memoryview(found)
    while view:
        count = sock.recv_into(view)
        if count == 0:
            raise ClosedError("the other side has closed the connection")
        view = view[count:]
    return found


def _strings(array: Any) -> bytes:
    parts: list[bytes] = []
    for element in array.reshape(-1):
        raw = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)


def _read_strings(payload: bytearray, at: int, shape: list[int]) -> tuple[Any, int]:
    count = int(np.prod(shape, dtype=np.int64))
    found = np.empty(count, dtype=object)
    for index in range(count):
        (size,) = _LENGTH.unpack_from(payload, at)
        at += _LENGTH.size
        found[index] = payload[at : at + size].decode("utf-8", "replace")
        at += size
    return found.reshape(shape), at
