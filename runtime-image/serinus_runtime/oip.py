"""Open Inference Protocol v2 over HTTP: JSON and binary tensors to arrays, arrays to answers, and metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from serinus_runtime.about import DECISION, About
from serinus_runtime.asked import Front, InferRequest, Reply
from serinus_runtime.binary import from_raw, to_raw
from serinus_runtime.datatypes import WIRE_BYTES, Array
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.fastjson import FastReader, Writer
from serinus_runtime.http import JSON
from serinus_runtime.joined import Joined
from serinus_runtime.oipforms import Input, Request, request_decoder
from serinus_runtime.oiptensors import Tail, elements
from serinus_runtime.problems import InvalidRequestError, decode_json, listed

__all__ = ["Front", "InferCodec", "InferRequest", "InvalidRequestError", "Reply"]

_HEAD_LENGTH = b"inference-header-content-length"
_REFUSED_PARAMETERS = ("classification", "shared_memory_region")


_encoder = msgspec.json.Encoder()


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
        return self.decode(body[:head], Tail(memoryview(body)[head:]))

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

    def decode(self, body: bytes, tail: Tail | None = None) -> InferRequest:
        """The request in the JSON `body` and the raw tensors in `tail`. Raises InvalidRequestError."""
        checked = self.check(decode_json(request_decoder, body), lambda spec, given: elements(spec, given, tail))
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
