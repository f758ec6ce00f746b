"""What an ONNX file says beside its signature, read from its protobuf without the onnx package.

Field numbers are those of onnx.proto3 (ModelProto, GraphProto, NodeProto, TensorProto). Weights are skipped over, not
read, so that a file of gigabytes costs as little as its structure.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 16
_Buffer = memoryview


class NotOnnxError(ValueError):
    """The bytes are not an ONNX model."""


class OnnxFile(msgspec.Struct):
    """What was found."""

    ir_version: int = 0
    producer: str = ""
    opsets: dict[str, int] = {}
    nodes: int = 0
    operators: dict[str, int] = {}
    """Nodes by operator, subgraphs included."""
    external: list[str] = []
    """Files that weights lie in, as the model names them."""


def read(path: Path) -> OnnxFile:
    """The file at `path`. Raises NotOnnxError, or OSError."""
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise NotOnnxError(f"{path} is empty") from error
        with mapped, memoryview(mapped) as view:
            return parse(view)


def parse(data: _Buffer) -> OnnxFile:
    """The model in `data`. Raises NotOnnxError."""
    found = OnnxFile()
    operators: Counter[str] = Counter()
    external: dict[str, None] = {}
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            found.ir_version = value
        elif number == 2 and isinstance(value, memoryview):
            found.producer = _text(value)
        elif number == 8 and isinstance(value, memoryview):
            domain, version = "", 0
            for inner, told in _fields(value):
                if inner == 1 and isinstance(told, memoryview):
                    domain = _text(told)
                elif inner == 2 and isinstance(told, int):
                    version = told
            found.opsets[domain or "ai.onnx"] = version
        elif number == 7 and isinstance(value, memoryview):
            _graph(value, operators, external, 0)
    if not found.ir_version or not found.opsets:
        raise NotOnnxError("this is not an ONNX model: it names no IR version or no operator set")
    found.operators = dict(operators.most_common())
    found.nodes = operators.total()
    found.external = list(external)
    return found


def _graph(data: _Buffer, operators: Counter[str], external: dict[str, None], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise NotOnnxError(f"graphs are nested more than {_MAX_DEPTH} deep")
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            _node(value, operators, external, depth)
        elif number == 5:
            _tensor(value, external)


def _node(data: _Buffer, operators: Counter[str], external: dict[str, None], depth: int) -> None:
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 4:
            operators[_text(value)] += 1
        elif number == 5:
            for inner, told in _fields(value):
                if isinstance(told, memoryview) and inner in (5, 10):
                    _tensor(told, external)
                elif isinstance(told, memoryview) and inner in (6, 11):
                    _graph(told, operators, external, depth + 1)


def _tensor(data: _Buffer, external: dict[str, None]) -> None:
    for number, value in _fields(data):
        if number == 13 and isinstance(value, memoryview):
            entry = {inner: _text(told) for inner, told in _fields(value) if isinstance(told, memoryview)}
            if entry.get(1) == "location":
                external[entry.get(2, "")] = None


def _fields(data: _Buffer) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int for varints, a view for bytes; fixed-size numbers are skipped."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if size > end - at:
                raise NotOnnxError("this is not an ONNX model, or only a part of one")
            yield number, data[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise NotOnnxError("this is not an ONNX model: no such protobuf field")
        if at > end or number == 0:
            raise NotOnnxError("this is not an ONNX model, or only a part of one")


def _varint(data: _Buffer, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise NotOnnxError("this is not an ONNX model, or only a part of one")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _text(value: memoryview) -> str:
    return bytes(value[:4096]).decode("utf-8", "replace")
