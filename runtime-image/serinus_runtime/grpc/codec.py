"""ModelInfer's messages: requests to arrays, arrays to answers.

Clients send the same request again with other numbers in it. With raw tensors, the bytes before those are then the same
as well, so what they were checked to be is remembered, and only lengths are read by hand. All else is protobuf's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from serinus_runtime.about import DECISION, About
from serinus_runtime.asked import InferRequest, Reply
from serinus_runtime.binary import MAX_STRINGS, from_raw, to_raw
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.grpc.schema import Message, message_class
from serinus_runtime.grpc.wireformat import field, split, top_fields, varint
from serinus_runtime.oip import InferCodec
from serinus_runtime.oipforms import Input, Output, Request
from serinus_runtime.problems import InvalidRequestError, reshaped

RAW = "raw"
"""The `form` of requests whose tensors are raw: so are those of their answers."""
_REQUEST = message_class("inference.ModelInferRequest")
_CONTENTS = message_class("inference.InferTensorContents")
_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_PACKED = {"BOOL": b"\x0a", "FP32": b"\x32", "FP64": b"\x3a"}
"""Contents that are, once packed, the raw tensor: the tag of their field."""
_MAX_FIELDS = 4096
"""Of a message, at its top: an empty one takes two bytes on the wire, and a hundred once it is read."""
_MAX_DIMENSIONS = 64
_HEADS = 256
_HEAD_BYTES = 4096
_PATIENCE = 4096


class _Known(msgspec.Struct, frozen=True, gc=False):
    """What the bytes before the raw tensors were found to be."""

    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    """Name, datatype and shape of each input, in the order of the raw tensors."""
    names: tuple[str, ...]
    """The inputs in the model's order; empty where that is the same."""
    rows: int
    outputs: tuple[str, ...]
    wanted: tuple[str, ...] | None


class GrpcCodec:
    """A `Front` whose bodies are ModelInferRequest and ModelInferResponse."""

    def __init__(self, model: str, version: str, codec: InferCodec, signature: Signature, about: About) -> None:
        self._codec = codec
        self._datatypes = {spec.name: spec.datatype for spec in signature.outputs}
        if about.rule is not None:
            self._datatypes[DECISION] = "BYTES"
        self._head = field(b"\x0a", model.encode()) + field(b"\x12", version.encode())
        self._known: dict[bytes, _Known] = {}
        self._patience = _PATIENCE

    # Requests.

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """The request in `body`. Raises InvalidRequestError."""
        parts = split(body)
        if parts is not None:
            head, request_id, raw = parts
            known = self._known.get(head)
            if known is not None and len(raw) == len(known.tensors):
                return _again(known, request_id, raw)
        request = self.decode(body)
        if parts is not None and request.form == RAW and len(parts[0]) <= _HEAD_BYTES and self._patience > 0:
            self._patience -= 1
            if len(self._known) >= _HEADS:
                self._known.clear()
            sent = [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in _REQUEST.FromString(head).inputs]
            names = tuple(request.inputs)
            self._known[head] = _Known(
                tuple(sent),
                () if names == tuple(name for name, _, _ in sent) else names,
                request.rows,
                request.outputs,
                request.wanted,
            )
        return request

    def decode(self, body: bytes) -> InferRequest:
        """The request in `body`, by way of protobuf. Raises InvalidRequestError."""
        message = parsed(_REQUEST, body)
        raw = message.raw_input_contents
        if raw and len(raw) != len(message.inputs):
            raise InvalidRequestError(
                f"raw_input_contents has {len(raw)} tensors, but there are {len(message.inputs)} inputs: it needs one "
                "for each, or none"
            )
        tensors: Iterator[tuple[Any, bytes | None]] = iter(
            [(tensor, raw[index] if raw else None) for index, tensor in enumerate(message.inputs)]
        )
        asked = Request(
            [_described(tensor) for tensor in message.inputs],
            [Output(output.name, _parameters(output.parameters)) for output in message.outputs],
            message.id or None,
            _parameters(message.parameters),
        )
        request = self._codec.check(asked, lambda spec, given: _array(spec, given, *next(tensors)))
        request.form = RAW if raw or request.binary else ""
        return request

    # Answers.

    def reply(self, request: InferRequest, results: Sequence[Array]) -> Reply:
        """The answer to `request`: its tensors are raw if the request's were, or if there is no other way."""
        return b"".join(self.parts(request, results)), b"", b""

    def parts(self, request: InferRequest, results: Sequence[Array]) -> list[bytes | memoryview]:
        """The answer in pieces, so that large tensors are copied once."""
        names = request.outputs
        if request.wanted is not None:
            names, results = self._codec.chosen_outputs(request.wanted, dict(zip(names, results, strict=True)))
        made: list[bytes | memoryview] = [self._head]
        if request.id is not None:
            made.append(field(b"\x1a", request.id.encode()))
        datatypes = self._datatypes
        if request.form == RAW or any(datatypes[name] not in _FIELDS for name in names):
            contents: list[bytes | memoryview] = []
            for name, array in zip(names, results, strict=True):
                made.append(_output(name, datatypes[name], array.shape))
                data = to_raw(array, datatypes[name])
                contents += (b"\x32" + varint(len(data)), data)
            return made + contents
        for name, array in zip(names, results, strict=True):
            datatype = datatypes[name]
            data = _contents(datatype, array)
            described = _described_output(name, datatype, array.shape)
            size = varint(len(data))
            made += (b"\x2a" + varint(len(described) + 1 + len(size) + len(data)), described, b"\x2a", size, data)
        return made


def parsed(kind: Message, body: bytes) -> Message:
    """The message in `body`. Raises InvalidRequestError."""
    if top_fields(body, _MAX_FIELDS) > _MAX_FIELDS:
        raise InvalidRequestError(f"the message has more than {_MAX_FIELDS} fields")
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidRequestError(f"the message is not {kind.DESCRIPTOR.full_name}: {error}") from None


def _again(known: _Known, request_id: str | None, raw: list[memoryview]) -> InferRequest:
    inputs = {
        name: from_raw(name, datatype, shape, data)
        for (name, datatype, shape), data in zip(known.tensors, raw, strict=True)
    }
    if known.names:
        inputs = {name: inputs[name] for name in known.names}
    return InferRequest(request_id, inputs, known.rows, known.outputs, known.wanted, form=RAW)


def _described(tensor: Message) -> Input:
    if len(tensor.shape) > _MAX_DIMENSIONS:
        raise InvalidRequestError(f"input {tensor.name!r}: the shape has {len(tensor.shape)} dimensions")
    if "shared_memory_region" in tensor.parameters:
        raise InvalidRequestError(f"input {tensor.name!r}: shared memory is not supported; send the data")
    return Input(tensor.name, list(tensor.shape), tensor.datatype)


def _parameters(given: Any) -> dict[str, Any] | None:
    found = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, kind) if kind is not None else None
    return found or None


def _array(spec: TensorSpec, given: Input, tensor: Message, raw: bytes | None) -> Array:
    if raw is not None:
        if tensor.HasField("contents"):
            raise InvalidRequestError(
                f"input {spec.name!r}: both contents and raw_input_contents are given; send one of them"
            )
        return from_raw(spec.name, spec.datatype, given.shape, memoryview(raw))
    wanted = _FIELDS.get(spec.datatype)
    if wanted is None:
        raise InvalidRequestError(
            f"input {spec.name!r}: contents have no place for {spec.datatype}; send it in raw_input_contents"
        )
    values = getattr(tensor.contents, wanted)
    count = 1
    for size in given.shape:
        count *= size
    if len(values) != count:
        raise InvalidRequestError(
            f"input {spec.name!r}: {wanted} has {len(values)} elements, but the shape {given.shape} needs {count}"
        )
    return reshaped(spec.name, _typed(spec, values, count), given.shape)


def _typed(spec: TensorSpec, values: Sequence[Any], count: int) -> Array:
    if spec.datatype == "BYTES":
        if count > MAX_STRINGS:
            raise InvalidRequestError(
                f"input {spec.name!r}: {count} BYTES elements; at most {MAX_STRINGS} are taken at once"
            )
        strings = np.empty(count, dtype=object)
        for index, value in enumerate(values):
            try:
                strings[index] = value.decode()
            except UnicodeDecodeError:
                raise InvalidRequestError(
                    f"input {spec.name!r}: BYTES element {index} is not UTF-8, which is all that ONNX strings hold"
                ) from None
        return strings
    try:
        array: Array = np.array(list(values), dtype=NUMPY[spec.datatype])
    except OverflowError:
        raise InvalidRequestError(
            f"input {spec.name!r}: data has a value that does not fit in {spec.datatype}"
        ) from None
    return array


def _contents(datatype: str, array: Array) -> bytes:
    tag = _PACKED.get(datatype)
    if tag is not None:
        data = to_raw(array)
        return b"".join((tag, varint(len(data)), data)) if len(data) else b""
    values = array.ravel().tolist()
    if datatype == "BYTES":
        values = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    serialized: bytes = _CONTENTS(**{_FIELDS[datatype]: values}).SerializeToString()
    return serialized


@lru_cache(maxsize=1024)
def _described_output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(map(varint, shape))
    return field(b"\x0a", name.encode()) + field(b"\x12", datatype.encode()) + (field(b"\x1a", sizes) if shape else b"")


@lru_cache(maxsize=1024)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return field(b"\x2a", _described_output(name, datatype, shape))
