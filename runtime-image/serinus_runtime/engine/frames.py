"""What the server and its worker processes say to each other: a small MessagePack header, then the arrays' bytes.

Nothing is pickled, so a worker that has gone bad can send wrong numbers but cannot run code in the server. Arrays go
from one memory to the other through a socket, without a copy in Python.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from serinus_runtime.datatypes import Array

MAX_HEADER = 256 << 20
"""Bytes; texts travel in the header."""
MAX_ARRAYS = 8 << 30
"""Bytes of arrays in one message."""
_LENGTH = struct.Struct("<I")
_MAX_BUFFERS = 256


class ConnectionLostError(Exception):
    """The other side has gone, or does not speak this protocol."""


class _Part(msgspec.Struct, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    texts: list[str | None] | None = None


class _Header(msgspec.Struct, array_like=True):
    op: str
    meta: dict[str, Any]
    parts: list[_Part]


class Message(msgspec.Struct, frozen=True):
    """One request or answer: `op` says what it is, `meta` holds what MessagePack can, `arrays` the rest."""

    op: str
    meta: Mapping[str, Any] = {}
    arrays: Mapping[str, Array] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Header)


def send(sock: socket.socket, message: Message, deadline: float | None = None) -> None:
    """Sends `message`. `deadline`: of time.monotonic. Raises TimeoutError, or OSError when nobody is there."""
    parts: list[_Part] = []
    buffers: list[memoryview] = []
    for name, array in message.arrays.items():
        if array.dtype.kind in "OUS":
            parts.append(_Part(name, "O", array.shape, [_text(item) for item in array.ravel().tolist()]))
        else:
            whole = np.ascontiguousarray(array)
            # ascontiguousarray makes a scalar a vector: the shape is the caller's.
            parts.append(_Part(name, _dtype_name(whole.dtype), array.shape))
            if whole.nbytes:
                buffers.append(_bytes(whole))
    header = _encoder.encode(_Header(message.op, dict(message.meta), parts))
    if len(header) > MAX_HEADER:
        raise ValueError(f"the texts of a batch take {len(header)} bytes; at most {MAX_HEADER} can be handed over")
    left = [memoryview(_LENGTH.pack(len(header))), memoryview(header), *buffers]
    while left:
        _limit(sock, deadline)
        sent = sock.sendmsg(left[:_MAX_BUFFERS])
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


def receive(sock: socket.socket, deadline: float | None = None) -> Message:
    """The next message. Raises TimeoutError, or ConnectionLostError when it ends early or is not one."""
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size, deadline))
    if length > MAX_HEADER:
        raise ConnectionLostError(f"a header of {length} bytes was announced")
    try:
        header = _decoder.decode(_exactly(sock, length, deadline))
        arrays = {part.name: _array(part) for part in header.parts}
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise ConnectionLostError(f"what came is no message: {error}") from None
    for part in header.parts:
        array = arrays[part.name]
        if part.texts is None and array.nbytes:
            _fill(sock, _bytes(array), deadline)
    return Message(header.op, header.meta, arrays)


def _array(part: _Part) -> Array:
    if part.texts is not None:
        texts = np.empty(len(part.texts), dtype=object)
        texts[:] = part.texts
        return texts.reshape(part.shape)
    dtype = _dtype(part.dtype)
    size = dtype.itemsize
    for extent in part.shape:
        if extent < 0:
            raise ValueError(f"shape {part.shape}")
        size *= extent
    if size > MAX_ARRAYS:
        raise ValueError(f"an array of {size} bytes")
    return np.empty(part.shape, dtype=dtype)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.kind == "V" else dtype.str


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    dtype = np.dtype(name)
    if dtype.kind not in "biuf":
        raise ValueError(f"numbers of the type {name!r}")
    return dtype


def _text(item: object) -> str | None:
    if item is None or isinstance(item, str):
        return item
    return bytes(item).decode() if isinstance(item, bytes | bytearray) else str(item)


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _limit(sock: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _exactly(sock: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    _fill(sock, memoryview(data), deadline)
    return data


def _fill(sock: socket.socket, view: memoryview, deadline: float | None) -> None:
    while view:
        _limit(sock, deadline)
        count = sock.recv_into(view)
        if count == 0:
            raise ConnectionLostError("the connection ended")
        view = view[count:]
