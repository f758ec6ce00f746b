"""The model asked in rows: `/v1/models/M:predict` as clients of TF Serving and KServe send it, and `/predict`.

A row is an object with one member for every column. Columns are the model's inputs, or, for an input that is a vector
with named elements (`features` in model.json), its elements. What may be sent is compiled once per model into typed
decoders, so that a row is either exactly right or refused with its place, and nothing is built from what is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from serinus_runtime import bfloat16
from serinus_runtime.about import DECISION, About, has_rows
from serinus_runtime.asked import InferRequest, Reply
from serinus_runtime.datatypes import NUMPY, Array
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.http import JSON
from serinus_runtime.problems import InvalidRequestError, decode_json, located, reshaped

SCORE = "score"
_encoder = msgspec.json.Encoder()
_NO_ROWS = "this model does not work in rows; ask it with /v2/models/NAME/infer"


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    """How TF Serving's clients send bytes."""

    b64: str


_ELEMENTS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float, "O": str | _Base64}


def _type(spec: TensorSpec, shape: Sequence[int]) -> Any:
    """The JSON of a tensor of `shape`: nested lists; a last dimension of one may also come without its list."""
    element = _ELEMENTS[NUMPY[spec.datatype].kind]
    made: Any = element
    for left in range(len(shape)):
        made = list[made]
        if left == 0 and len(shape) < 3 and shape[-1] == 1:
            made = made | element
    return made


def _usable(signature: Signature, about: About) -> bool:
    """False when a name cannot be a member of a compiled row: quotes, backslashes and control characters."""
    names = [spec.name for spec in signature.inputs] + [name for names in about.columns.values() for name in names]
    return all(name.isprintable() and not set(name) & {'"', "\\"} for name in names)


class _Part:
    """One input: which members of a row make it."""

    def __init__(self, spec: TensorSpec, shape: tuple[int, ...], members: Sequence[str]) -> None:
        self.spec = spec
        self.shape = shape
        self.members = tuple(members)


class Rows:
    """Reads lists of rows into the model's inputs."""

    def __init__(self, parts: Sequence[_Part], *, bare: bool = False) -> None:
        self._parts = parts
        self._bare = bare
        fields: list[tuple[str, Any]] = []
        names: dict[str, str] = {}
        for part in parts:
            kind = _type(part.spec, part.shape if len(part.members) == 1 else ())
            for member in part.members:
                field = f"f{len(fields)}"
                names[field] = member
                fields.append((field, kind))
        row: Any = (
            fields[0][1]
            if bare
            else msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)
        )
        self._many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[row])
        self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(row)

    def read(self, text: bytes, root: str, *, one: bool = False) -> tuple[dict[str, Array], int]:
        """The inputs, and how many rows they have, in the JSON `text`, which messages call `root`."""
        rows = _decoded(self._one if one else self._many, text, root)
        if one:
            rows = [rows]
        if not rows:
            raise InvalidRequestError(f"{root}: there are no rows; send at least one")
        table = [(row,) for row in rows] if self._bare else [msgspec.structs.astuple(row) for row in rows]
        inputs: dict[str, Array] = {}
        at = 0
        for part in self._parts:
            end = at + len(part.members)
            values = [row[at] for row in table] if end - at == 1 else [list(row[at:end]) for row in table]
            inputs[part.spec.name] = _tensor(part.spec, values, (len(rows), *part.shape))
            at = end
        return inputs, len(rows)


def _decoded(decoder: msgspec.json.Decoder[Any], text: bytes, root: str) -> Any:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(located(str(error), root, root)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"{root}: not JSON: {error}") from None


def _tensor(spec: TensorSpec, values: list[Any], shape: Sequence[int]) -> Array:
    """`values`, nested as `shape` says (-1 is any size), as an array."""
    dtype = NUMPY[spec.datatype]
    if tuple(shape[1:]) == (1,):
        values = [value if isinstance(value, list) else [value] for value in values]
    try:
        with np.errstate(over="raise"):
            array: Array = np.array(_texts(spec.name, values) if dtype.kind == "O" else values, dtype=dtype)
            if spec.datatype == bfloat16.NAME:
                array = bfloat16.rounded(array)
    except (OverflowError, FloatingPointError):
        raise InvalidRequestError(f"column {spec.name!r}: a value does not fit in {spec.datatype}") from None
    except ValueError:
        raise InvalidRequestError(f"column {spec.name!r}: lists of different lengths") from None
    if array.ndim == len(shape) and all(want in (-1, got) for got, want in zip(array.shape, shape, strict=True)):
        return reshaped(spec.name, array, array.shape)
    raise InvalidRequestError(
        f"column {spec.name!r}: the values have the shape {list(array.shape)}, but {list(shape)} is needed (-1 is any "
        "size)"
    )


def _texts(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(name, item) for item in value]
    if isinstance(value, str):
        return value
    try:
        return base64.b64decode(value.b64, validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequestError(f"column {name!r}: b64 must hold UTF-8 text in base64") from None


class _Readers:
    """All forms of a row that a model understands, tried one after the other."""

    def __init__(self, signature: Signature, about: About, *, bare: bool) -> None:
        specs = signature.inputs
        tensors = [_Part(spec, spec.shape[1:], (spec.name,)) for spec in specs]
        columns = [
            _Part(spec, (len(about.columns[spec.name]),), about.columns[spec.name])
            if spec.name in about.columns
            else part
            for spec, part in zip(specs, tensors, strict=True)
        ]
        self._forms = [Rows(columns)]
        self._marks: list[bytes] = []
        if about.columns:
            self._forms.append(Rows(tensors))
            self._marks = [_encoder.encode(name) for name in about.columns]
        if bare and len(specs) == 1:
            self._forms.append(Rows(tensors, bare=True))

    def read(self, text: bytes, root: str, *, one: bool = False) -> tuple[dict[str, Array], int]:
        """The inputs in the JSON `text`; the message is that of the form which the sender most likely meant."""
        objects = text.lstrip(b"[ \t\r\n")[:1] == b"{"
        forms = self._forms
        if not objects:
            forms = forms[::-1]
        elif any(mark in text for mark in self._marks):
            forms = [forms[1], forms[0], *forms[2:]]
        first: InvalidRequestError | None = None
        for form in forms:
            try:
                return form.read(text, root, one=one)
            except InvalidRequestError as error:
                first = first or error
        assert first is not None
        raise first


class _V1(msgspec.Struct):
    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    signature_name: str | None = None


class PredictV1:
    """`/v1/models/M:predict`: `instances` in and `predictions` out, or columns: `inputs` in and `outputs` out."""

    def __init__(self, signature: Signature, about: About) -> None:
        usable = _usable(signature, about)
        self._batched = signature.batched
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._rows = _Readers(signature, about, bare=True) if usable and has_rows(signature) else None
        self._specs = signature.inputs
        fields = [(f"f{index}", _type(spec, spec.shape)) for index, spec in enumerate(self._specs)]
        names = {f"f{index}": spec.name for index, spec in enumerate(self._specs) if usable}
        self._columns: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Columns", fields, rename=names, forbid_unknown_fields=True)
        )
        self._column: msgspec.json.Decoder[Any] | None = (
            msgspec.json.Decoder(fields[0][1]) if len(fields) == 1 else None
        )
        self._decoder = msgspec.json.Decoder(_V1)

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """The request in `body`. Raises InvalidRequestError."""
        request = decode_json(self._decoder, body)
        if request.signature_name not in (None, "", "serving_default"):
            raise InvalidRequestError(f"signature_name {request.signature_name!r:.80}: there is only 'serving_default'")
        if isinstance(request.instances, msgspec.UnsetType):
            if isinstance(request.inputs, msgspec.UnsetType):
                raise InvalidRequestError("send either instances (a list of rows) or inputs (columns)")
            inputs = self._read_columns(bytes(request.inputs))
            rows = len(next(iter(inputs.values()))) if self._batched else 1
            return InferRequest(None, inputs, rows, self._outputs, form="columns")
        if not isinstance(request.inputs, msgspec.UnsetType):
            raise InvalidRequestError("send either instances (a list of rows) or inputs (columns), not both")
        if self._rows is None:
            raise InvalidRequestError(_NO_ROWS)
        inputs, rows = self._rows.read(bytes(request.instances), "$.instances")
        return InferRequest(None, inputs, _checked(self._specs, rows, batched=self._batched), self._outputs)

    def _read_columns(self, text: bytes) -> dict[str, Array]:
        if self._column is not None and text.lstrip()[:1] != b"{":
            values = [_decoded(self._column, text, "$.inputs")]
        else:
            values = list(msgspec.structs.astuple(_decoded(self._columns, text, "$.inputs")))
        inputs: dict[str, Array] = {}
        rows: int | None = None
        for spec, value in zip(self._specs, values, strict=True):
            if spec.shape == (1,) and not isinstance(value, list):
                value = [value]
            array = _whole(spec, value)
            if self._batched:
                if rows is not None and len(array) != rows:
                    raise InvalidRequestError(f"input {spec.name!r} has {len(array)} rows, but others have {rows}")
                rows = len(array)
                if not rows:
                    raise InvalidRequestError(f"input {spec.name!r}: there are no rows; send at least one")
            inputs[spec.name] = array
        return inputs

    def reply(self, request: InferRequest, results: Sequence[Array]) -> Reply:
        """The answer to `request`; `results` are the arrays of its `outputs`, in that order."""
        outputs = dict(zip(request.outputs, results, strict=True))
        single = next(iter(outputs.values())) if len(outputs) == 1 else None
        answer: Any
        if request.form == "columns":
            answer = {name: array.tolist() for name, array in outputs.items()} if single is None else single.tolist()
            return _encoder.encode({"outputs": answer}), JSON, b""
        if single is not None:
            answer = single.tolist()
        else:
            columns = [array.tolist() for array in outputs.values()]
            answer = [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]
        return _encoder.encode({"predictions": answer}), JSON, b""


def _whole(spec: TensorSpec, value: Any) -> Array:
    """A tensor with all its dimensions."""
    if not spec.shape:
        return _tensor(spec, [value], (1,)).reshape(())
    return _tensor(spec, value, spec.shape)


def _checked(specs: Sequence[TensorSpec], rows: int, *, batched: bool) -> int:
    """What the batcher calls the number of rows. A model with a fixed number of them takes no other."""
    if batched:
        return rows
    if rows != specs[0].shape[0]:
        raise InvalidRequestError(f"{rows} rows, but the model takes exactly {specs[0].shape[0]} at once")
    return 1


class Predict:
    """`/predict`: one object of named columns, or a list of them, and as many objects back."""

    def __init__(self, signature: Signature, about: About) -> None:
        self._batched = signature.batched
        self._specs = signature.inputs
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._rule = about.rule
        self._rows = (
            _Readers(signature, about, bare=False) if _usable(signature, about) and has_rows(signature) else None
        )

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferRequest:
        """The request in `body`. Raises InvalidRequestError."""
        if self._rows is None:
            raise InvalidRequestError(_NO_ROWS)
        start = body.lstrip(b" \t\r\n")[:1]
        if start not in (b"{", b"["):
            raise InvalidRequestError("the body must be one JSON object of named columns, or a list of such objects")
        inputs, rows = self._rows.read(body, "$", one=start == b"{")
        form = "one" if start == b"{" else ""
        return InferRequest(None, inputs, _checked(self._specs, rows, batched=self._batched), self._outputs, form=form)

    def reply(self, request: InferRequest, results: Sequence[Array]) -> Reply:
        """The answer to `request`: each row's outputs, and the rule's score and decision where there is one."""
        outputs = dict(zip(request.outputs, results, strict=True))
        columns = {name: _flat(array).tolist() for name, array in outputs.items()}
        if self._rule is not None:
            scores = self._rule.scores(outputs[self._rule.output])
            columns.setdefault(SCORE, scores.tolist())
            columns[DECISION] = self._rule.decide(scores).tolist()
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return _encoder.encode(answer[0] if request.form == "one" else answer), JSON, b""


def _flat(array: Array) -> Array:
    """A row of one element is that element."""
    return array.reshape(len(array)) if array.ndim == 2 and array.shape[1] == 1 else array
