"""The OpenAPI 3.1 document of the server, exact for the model that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serinus_runtime import __version__
from serinus_runtime.about import DECISION, About, Rule
from serinus_runtime.datatypes import NUMPY
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.indexdocument import INDEX, index

Schema = dict[str, Any]
_OVERFLOW = {"FP16": 65520.0, "BF16": (2 - 2.0**-8) * 2.0**127, "FP32": (2 - 2.0**-24) * 2.0**127}
"""The least numbers that round to infinity."""
_REFUSALS = {
    "400": "The request is wrong; the text says where",
    "413": "The body, or its number of rows, is too large",
    "415": "The body is compressed",
    "429": "The queue is full; see Retry-After",
    "500": "The model failed",
    "503": "Loading, or going away; ask another replica",
    "504": "Waited longer than the queue timeout",
}
_STANDINGS = ("live", "ready", "modelReady", "status")
"""Operations that tell the same thing with 503 as with 200."""


def openapi(name: str, version: str, signature: Signature, about: About, *, rows: bool) -> Schema:
    """The document. `rows`: the model can be asked row by row."""
    infer = _asked(
        "Open Inference Protocol v2", _infer_request(signature, about.rule), _infer_answer(name, version, signature)
    )
    infer["description"] = "Tensors may also come and go as raw bytes: the protocol's binary tensor extension."
    paths: dict[str, Schema] = {
        f"/v2/models/{name}/infer": {"post": {**infer, "operationId": "infer"}},
        f"/v2/models/{name}/versions/{version}/infer": {"post": {**infer, "operationId": "inferVersion"}},
    }
    if rows:
        forms = _rows(signature, about)
        answer = _answer_row(signature, about.rule)
        predict = _asked(
            "Named columns: one object, or a list of them",
            {"anyOf": [*forms, *(_list(form) for form in forms)]},
            {"oneOf": [answer, {"type": "array", "minItems": 1, "items": answer}]},
        )
        predict["requestBody"]["content"]["application/json"]["example"] = _example(signature, about)
        paths = {"/predict": {"post": {**predict, "operationId": "predict"}}, **paths}
        paths[f"/v1/models/{name}:predict"] = {"post": {**_v1(signature, forms), "operationId": "predictV1"}}
    for path, operation, summary in (
        ("/v2", "server", "Server metadata"),
        ("/v2/health/live", "live", "Liveness"),
        ("/v2/health/ready", "ready", "Readiness"),
        (f"/v2/models/{name}", "metadata", "Inputs and outputs"),
        (f"/v2/models/{name}/ready", "modelReady", "Readiness of the model"),
        (f"/v2/models/{name}/config", "config", "Configuration of the model"),
        (f"/v2/models/{name}/stats", "stats", "Counts and times"),
        (f"/v1/models/{name}", "status", "State, as TF Serving tells it"),
    ):
        away = _refusal(_REFUSALS["503"])
        if operation in _STANDINGS:
            away = _json_body("The same, of a server or model that is not", {"type": "object"})
        paths[path] = {
            "get": {
                "operationId": operation,
                "summary": summary,
                "responses": {"200": _json_body(summary, {"type": "object"}), "503": away},
            }
        }
    paths[INDEX] = index(name, version)
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version, "description": f"Served by serinus-runtime {__version__}."},
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}}
        },
    }


def _json_body(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _refusal(text: str) -> Schema:
    return _json_body(text, {"$ref": "#/components/schemas/Error"})


def _asked(summary: str, request: Schema, answer: Schema) -> Schema:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": _json_body("The answer", answer),
            **{code: _refusal(_REFUSALS[code]) for code in _REFUSALS},
        },
    }


def _element(datatype: str, *, answer: bool = False) -> Schema:
    dtype = NUMPY[datatype]
    if dtype.kind == "O":
        return {"type": "string"}
    if dtype.kind == "b":
        return {"type": "boolean"}
    if dtype.kind == "f":
        # NaN and infinities have no JSON.
        if answer:
            return {"type": ["number", "null"]}
        limit = _OVERFLOW.get(datatype)
        more = {"exclusiveMinimum": -limit, "exclusiveMaximum": limit} if limit is not None else {}
        return {"type": "number", **more}
    bits = dtype.itemsize * 8
    low, high = (0, (1 << bits) - 1) if dtype.kind == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return {"type": "integer", "minimum": low, "maximum": high}


def _nested(element: Schema, shape: Sequence[int]) -> Schema:
    made = element
    for size in reversed(shape):
        made = {"type": "array", "items": made}
        if size >= 0:
            made |= {"minItems": size, "maxItems": size}
    return made


def _shape(shape: Sequence[int], *, rows: bool) -> Schema:
    sizes: list[Schema] = [{"type": "integer", "minimum": 0} if size == -1 else {"const": size} for size in shape]
    if rows and sizes:
        sizes[0] = {"type": "integer", "minimum": 1}
    fixed: Schema = {"prefixItems": sizes, "items": False} if sizes else {}
    return {"type": "array", **fixed, "minItems": len(sizes), "maxItems": len(sizes)}


def _tensor(spec: TensorSpec, *, rows: bool, answer: bool) -> Schema:
    element = _element(spec.datatype, answer=answer)
    data: Schema = {"type": "array", "items": element}
    if not answer and len(spec.shape) > 1:
        data = {"anyOf": [data, _nested(element, spec.shape)]}
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": spec.name},
            # Exporters may leave the shape of an output out.
            "shape": {"type": "array", "items": {"type": "integer"}} if answer else _shape(spec.shape, rows=rows),
            "datatype": {"const": spec.datatype},
            "data": data,
        },
    }


def _infer_request(signature: Signature, rule: Rule | None) -> Schema:
    outputs = [spec.name for spec in signature.outputs] + ([DECISION] if rule is not None else [])
    count = len(signature.inputs)
    inputs: Schema = {"type": "array", "minItems": count, "maxItems": count}
    if count:
        inputs["items"] = {"oneOf": [_tensor(spec, rows=signature.batched, answer=False) for spec in signature.inputs]}
        inputs["allOf"] = [
            {"contains": {"type": "object", "required": ["name"], "properties": {"name": {"const": spec.name}}}}
            for spec in signature.inputs
        ]
    chosen = {"type": "object", "required": ["name"], "properties": {"name": {"enum": outputs}}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": inputs,
            "outputs": {"type": ["array", "null"], "items": chosen},
        },
    }


def _infer_answer(name: str, version: str, signature: Signature) -> Schema:
    outputs = [_tensor(spec, rows=False, answer=True) for spec in signature.outputs]
    outputs.append(_tensor(TensorSpec(DECISION, "BYTES", (-1,)), rows=False, answer=True))
    known: Schema = {"items": {"anyOf": outputs}}
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": name},
            "model_version": {"const": version},
            "id": {"type": "string"},
            "outputs": {"type": "array", **known},
        },
    }


def _object(properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _cell(spec: TensorSpec) -> Schema:
    element, shape = _element(spec.datatype), spec.shape[1:]
    nested = _nested(element, shape)
    return {"anyOf": [element, nested]} if tuple(shape) == (1,) else nested


def _list(item: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": item}


def _rows(signature: Signature, about: About) -> list[Schema]:
    """The forms of a row; all rows of a list have the same."""
    columns: dict[str, Schema] = {}
    for spec in signature.inputs:
        if spec.name in about.columns:
            columns |= {name: _element(spec.datatype) for name in about.columns[spec.name]}
        else:
            columns[spec.name] = _cell(spec)
    by_column = _object(columns)
    if not about.columns:
        return [by_column]
    return [by_column, _object({spec.name: _cell(spec) for spec in signature.inputs})]


def _example(signature: Signature, about: About) -> dict[str, object]:
    example: dict[str, object] = {}
    zeros: dict[str, object] = {"O": "", "b": False, "f": 0.0}
    for spec in signature.inputs:
        zero = zeros.get(NUMPY[spec.datatype].kind, 0)
        if spec.name in about.columns:
            example |= dict.fromkeys(about.columns[spec.name], zero)
            continue
        made = zero
        for size in reversed(spec.shape[1:] if tuple(spec.shape[1:]) != (1,) else ()):
            made = [made] * (min(size, 1024) if size >= 0 else 1)
        example[spec.name] = made
    return example


def _answer_row(signature: Signature, rule: Rule | None) -> Schema:
    columns: dict[str, Schema] = {}
    for spec in signature.outputs:
        element = _element(spec.datatype, answer=True)
        shape = spec.shape[1:]
        known = bool(spec.shape) and len(shape) < 2
        columns[spec.name] = (element if tuple(shape) in ((), (1,)) else _nested(element, shape)) if known else {}
    if rule is not None:
        columns.setdefault("score", {"type": ["number", "null"]})
        columns[DECISION] = {"enum": rule.names}
    return _object(columns)


def _v1(signature: Signature, forms: list[Schema]) -> Schema:
    if len(signature.inputs) == 1:
        forms = [*forms, _cell(signature.inputs[0])]
    columns = {
        spec.name: {"type": "array", "minItems": 1, "items": _cell(spec)} for spec in signature.inputs if spec.shape
    }
    wholes = [_object(columns), *(columns.values() if len(columns) == 1 else ())]
    signature_name = {"enum": ["serving_default", "", None]}
    return _asked(
        "Rows or columns, as clients of TF Serving and KServe send them",
        {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["instances"],
                    "properties": {
                        "instances": {"anyOf": [_list(form) for form in forms]},
                        "inputs": False,
                        "signature_name": signature_name,
                    },
                },
                {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {"inputs": {"anyOf": wholes}, "instances": False, "signature_name": signature_name},
                },
            ]
        },
        {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["predictions"],
                    "properties": {"predictions": {"type": "array", "minItems": 1}},
                },
                {"type": "object", "required": ["outputs"]},
            ]
        },
    )
