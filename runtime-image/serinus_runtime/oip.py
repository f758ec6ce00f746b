"""Open Inference Protocol v2 over HTTP: JSON and binary tensors to arrays, arrays to answers, and metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from serinus_runtime import bfloat16
from serinus_runtime.about import DECISION, About
from serinus_runtime.binary import from_raw, to_raw
from serinus_runtime.datatypes import NUMPY, WIRE_BYTES, Array
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.fastjson import FastReader, Writer
from serinus_runtime.http import JSON
from serinus_runtime.joined import Joined
from serinus_runtime.oipforms import Input, Request, request_decoder
from serinus_runtime.problems import InvalidRequestError, decode_json, listed, located, reshaped

__all__ = ["Front", "InferCodec", "InferRequest", "InvalidRequestError", "Reply"]

_MAX_NESTING = 16
_HEAD_LENGTH = b"inference-header-content-length"
_REFUSED_PARAMETERS = ("classification", "shared_memory_region")
_NONE: frozenset[str] = frozenset()
_ELEMENTS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float, "O": str}


class InferRequest:
    """A checked request: arrays for every input of the model, rows along axis 0 (1 where the model has no rows)."""

    __slots__ = ("binary", "form", "id", "inputs", "kind", "outputs", "parameters", "raw", "rows", "wanted")

    def __init__(
        self,
        id: str | None,
        inputs: dict[str, Array],
        rows: int,
        outputs: tuple[str, ...],
        wanted: tuple[str, ...] | None = None,
        binary: frozenset[str] = _NONE,
        form: str = "",
        parameters: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        """What the engine must give."""
        self.wanted = wanted
        """What the answer holds, where that differs: outputs that rules add, or fewer."""
        self.binary = binary
        """Which of them the answer holds as raw bytes."""
        self.form = form
        """What a `Front` remembers of how it was asked."""
        self.parameters = parameters
        """What the request says about itself: `timeout`, `priority`."""
        self.raw = b""
        """The bytes of the only input, where they are known."""
        self.kind = b""
        """What comes before `raw` in its hash."""

    @property
    def plain(self) -> bool:
        """True: nothing but its numbers makes the answer different from those of its neighbours."""
        return self.id is None and self.wanted is None and not self.binary


Reply = tuple[bytes, bytes, bytes]
"""Body, content type, and whole header lines."""


class Front(Protocol):
    """One way to ask the model: what stands between the bytes of an HTTP request and the batcher."""

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """The request in `body`. Raises InvalidRequestError."""

    def reply(self, request: InferRequest, results: Sequence[Array]) -> Reply:
        """The answer to `request`; `results` are the arrays of its `outputs`, in that order."""


class _Tail:
    """The raw bytes behind the JSON of a binary request, taken in the order of the inputs."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw
        self._at = 0

    def take(self, name: str, size: object) -> memoryview:
        if type(size) is not int or size < 0:
            raise InvalidRequestError(f"input {name!r}: binary_data_size must be a whole number, not {size!r:.60}")
        left = len(self._raw) - self._at
        if size > left:
            raise InvalidRequestError(f"input {name!r}: binary_data_size is {size}, but only {left} bytes follow")
        start, self._at = self._at, self._at + size
        return self._raw[start : self._at]

    def end(self) -> None:
        if self._at != len(self._raw):
            raise InvalidRequestError(
                f"{len(self._raw) - self._at} bytes of binary data belong to no input: the sum of binary_data_size is "
                f"{self._at}, but {len(self._raw)} bytes follow the JSON"
            )


_encoder = msgspec.json.Encoder()


def _data_decoder(kind: str, depth: int) -> msgspec.json.Decoder[Any]:
    element: Any = _ELEMENTS[kind]
    for _ in range(depth):
        element = list[element]
    return msgspec.json.Decoder(element)


_data_decoders = {kind: [_data_decoder(kind, depth) for depth in range(_MAX_NESTING + 1)] for kind in _ELEMENTS}


class InferCodec:
    """Checks requests against one model's signature, and writes its answers."""

    def __init__(self, model: str, version: str, signature: Signature, about: About | None = None) -> None:
        self._signature = signature
        self._rule = about.rule if about is not None else None
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
        if self._rule is not None:
            self._output_heads[DECISION] = b'{"name":"decision","datatype":"BYTES","shape":'
        self._fast = FastReader(signature)
        self._writer = Writer(self._head, self._output_heads)
        self.encode = self._writer.write

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """The request in `body`, JSON or JSON with raw tensors behind it. Raises InvalidRequestError."""
        length = headers.get(_HEAD_LENGTH)
        if length is not None:
            return self._decode_binary(body, length)
        if self._fast.usable and (found := self._fast.read(body)) is not None:
            request_id, inputs, rows, raw, kind = found
            request = InferRequest(request_id, inputs, rows, self._all_outputs)
            request.raw, request.kind = raw, kind
            return request
        return self.decode(body)

    def reply(self, request: InferRequest, results: Sequence[Array]) -> Reply:
        """The answer to `request`; `results` are the arrays of its `outputs`, in that order."""
        names = request.outputs
        if request.wanted is not None:
            names, results = self.chosen_outputs(request.wanted, dict(zip(names, results, strict=True)))
        if request.binary:
            return self._encode_binary(request, names, results)
        return self.encode(request.id, names, results), JSON, b""

    def rows(self, batch: Joined) -> list[bytes]:
        """The bodies of the answers to all requests of `batch`, if each is `plain`."""
        if batch.bodies is None:
            batch.bodies = self._writer.rows(batch)
        return batch.bodies

    def chosen_outputs(
        self, wanted: tuple[str, ...], found: dict[str, Array]
    ) -> tuple[tuple[str, ...], Sequence[Array]]:
        """The outputs that the answer holds, of those that the engine gave."""
        if self._rule is not None and DECISION in wanted:
            found[DECISION] = self._rule.decide(self._rule.scores(found[self._rule.output]))
        return wanted, [found[name] for name in wanted]

    def _decode_binary(self, body: bytes, length: bytes) -> InferRequest:
        if not (length.isdigit() and len(length) < 16 and int(length) <= len(body)):
            raise InvalidRequestError(
                f"Inference-Header-Content-Length is {length[:40].decode('latin-1')!r}; it must be the length of the "
                f"JSON at the start of the body, which has {len(body)} bytes"
            )
        head = int(length)
        if head == 0:
            return self._decode_raw(memoryview(body))
        return self.decode(body[:head], _Tail(memoryview(body)[head:]))

    def _decode_raw(self, raw: memoryview) -> InferRequest:
        """The whole body is the only input: what is left open in its shape follows from the length."""
        specs = self._signature.inputs
        if len(specs) != 1 or specs[0].datatype == "BYTES" or specs[0].shape.count(-1) > 1:
            raise InvalidRequestError(
                "Inference-Header-Content-Length is 0, but only a model with one input of numbers and at most one open "
                "dimension can be asked without JSON"
            )
        spec = specs[0]
        known = math.prod(size for size in spec.shape if size != -1) * WIRE_BYTES[spec.datatype]
        shape = [size if size != -1 else len(raw) // max(known, 1) for size in spec.shape]
        given = Input(spec.name, shape, spec.datatype)
        self._check(spec, given)
        array = from_raw(spec.name, spec.datatype, shape, raw)
        rows = shape[0] if self._signature.batched else 1
        return InferRequest(None, {spec.name: array}, rows, self._all_outputs, binary=frozenset(self._all_outputs))

    def decode(self, body: bytes, tail: _Tail | None = None) -> InferRequest:
        """The request in the JSON `body` and the raw tensors in `tail`. Raises InvalidRequestError."""
        checked = self.check(decode_json(request_decoder, body), lambda spec, given: _array(spec, given, tail))
        if tail is not None:
            tail.end()
        return checked

    def check(self, request: Request, array: Callable[[TensorSpec, Input], Array]) -> InferRequest:
        """The checked `request`; `array` gives the elements of each input, in the order in which they were sent.

        Raises InvalidRequestError, and what `array` raises.
        """
        inputs: dict[str, Array] = {}
        rows: int | None = None
        for given in request.inputs:
            name = given.name
            spec = self._inputs.get(name)
            if spec is None:
                raise InvalidRequestError(
                    f"input {name!r}: the model has no such input; it takes {listed(self._inputs)}"
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
            inputs[name] = array(spec, given)
        if len(inputs) != len(self._inputs):
            missing = [name for name in self._inputs if name not in inputs]
            raise InvalidRequestError(f"input {missing[0]!r} is missing; the model needs {listed(self._inputs)}")
        if len(inputs) > 1:
            inputs = {name: inputs[name] for name in self._inputs}
        count = 1 if rows is None else rows
        if not request.outputs and request.parameters is None:
            return InferRequest(request.id, inputs, count, self._all_outputs)
        wanted, binary = self._choose(request)
        outputs = wanted
        if self._rule is not None and DECISION in wanted:
            outputs = tuple(dict.fromkeys((*(name for name in wanted if name != DECISION), self._rule.output)))
        return InferRequest(
            request.id,
            inputs,
            count,
            outputs,
            wanted if outputs != wanted else None,
            binary=frozenset(binary),
            parameters=request.parameters,
        )

    def _choose(self, request: Request) -> tuple[tuple[str, ...], list[str]]:
        """The names of the outputs that are asked for, and those of them that are asked for as raw bytes."""
        every = _flag(request.parameters, "binary_data_output", "parameters", default=False)
        if not request.outputs:
            return self._all_outputs, list(self._all_outputs) if every else []
        chosen: dict[str, bool] = {}
        for output in request.outputs:
            name = output.name
            if name not in self._output_heads:
                raise InvalidRequestError(
                    f"output {name!r}: the model has no such output; it gives {listed(self._output_heads)}"
                )
            for refused in _REFUSED_PARAMETERS:
                if output.parameters is not None and refused in output.parameters:
                    raise InvalidRequestError(f"output {name!r}: the parameter {refused!r} is not supported")
            chosen[name] = _flag(output.parameters, "binary_data", f"output {name!r}", default=every)
        return tuple(chosen), [name for name, binary in chosen.items() if binary]

    def _check(self, spec: TensorSpec, given: Input) -> None:
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

    def _encode_binary(self, request: InferRequest, names: Sequence[str], results: Sequence[Array]) -> Reply:
        described: list[dict[str, object]] = []
        raw: list[bytes | memoryview] = []
        for name, array in zip(names, results, strict=True):
            datatype = "BYTES" if name == DECISION and self._rule is not None else self._outputs[name].datatype
            entry: dict[str, object] = {"name": name, "datatype": datatype, "shape": array.shape}
            if name in request.binary:
                raw.append(to_raw(array, datatype))
                entry["parameters"] = {"binary_data_size": len(raw[-1])}
            else:
                entry["data"] = array.ravel().tolist()
            described.append(entry)
        more = b"" if request.id is None else b',"id":' + _encoder.encode(request.id)
        head = self._head + more + b',"outputs":' + _encoder.encode(described) + b"}"
        length = b"inference-header-content-length: %d\r\n" % len(head)
        return b"".join((head, *raw)), b"application/octet-stream", length

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


def _flag(parameters: Mapping[str, Any] | None, name: str, where: str, *, default: bool) -> bool:
    value = default if parameters is None else parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{where}: the parameter {name!r} must be true or false")
    return value


def _array(spec: TensorSpec, given: Input, tail: _Tail | None) -> Array:
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


def _binary_array(spec: TensorSpec, given: Input, tail: _Tail | None) -> Array:
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
