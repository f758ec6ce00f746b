"""What the door, the jobs and the control of the model add to the OpenAPI document."""

from __future__ import annotations

from typing import Any

from serinus_runtime.indexdocument import INDEX
from serinus_runtime.ingress.describingcontrol import describe_control

Schema = dict[str, Any]
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_HEADERS: tuple[tuple[str, str, Schema], ...] = (
    ("X-Priority", "1, the highest, to 9; 0 or 5: everybody's", {"type": "integer", "minimum": 0, "maximum": 9}),
    ("traceparent", "The client's trace (W3C trace context); not looked at when it is none", {"type": "string"}),
)
_TIMEOUT = " X-Request-Timeout says how long the client waits: seconds, or with a unit such as 250ms."
_REFUSED = {"401": "No key, or one that is not known", "403": "The key is not good for this"}


def describe(
    document: Schema, model: str, *, keys: bool, open_paths: frozenset[str], jobs: bool, control: bool
) -> Schema:
    """`document` with headers, and, where they are on, keys, jobs, loading and unloading."""
    paths: Schema = document["paths"]
    headers = [{"name": name, "in": "header", "description": text, "schema": schema} for name, text, schema in _HEADERS]
    asked = [path for path, operations in paths.items() if "post" in operations and path != INDEX]
    for path in asked:
        operation = paths[path]["post"]
        operation["parameters"] = headers
        operation["description"] = (operation.get("description", "") + _TIMEOUT).strip()
    if jobs:
        infer = paths[f"/v2/models/{model}/infer"]["post"]
        paths[f"/v2/models/{model}/async"] = {"post": _submit(infer)}
        paths["/v2/requests/{id}"] = _job()
    if control:
        describe_control(document, model)
    if keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operations in paths.items():
            told = path == INDEX or "get" in operations
            if "/health/" in path or path.endswith("/ready") or ("metadata" in open_paths and told):
                continue
            for name in ("get", "post", "delete"):
                if name in operations:
                    operations[name]["security"] = [{"bearer": []}, {"key": []}]
                    operations[name]["responses"] |= {code: _refusal(text) for code, text in _REFUSED.items()}
    return document


def _refusal(text: str) -> Schema:
    return {"description": text, "content": _ERROR}


def _submit(infer: Schema) -> Schema:
    accepted = {
        "description": "Accepted: poll the address in Location",
        "headers": {"Location": {"schema": {"type": "string"}}, "Retry-After": {"schema": {"type": "integer"}}},
        "content": {"application/json": {"schema": _STATUS}},
    }
    return {
        "operationId": "submit",
        "summary": "Asks now; the answer is fetched later",
        "description": "The same as infer with the header Prefer: respond-async.",
        "requestBody": infer["requestBody"],
        "parameters": [
            {
                "name": "X-Callback-URL",
                "in": "header",
                "description": "Where the result is posted, if its host is allowed",
                "schema": {"type": "string", "format": "uri"},
            }
        ],
        "responses": {
            "202": accepted,
            "400": _refusal("The address cannot be called back"),
            "413": _refusal("The body is too large"),
            "429": _refusal("Too many jobs, or too many requests; see Retry-After"),
            "503": _refusal("Loading, going away, or the store does not answer"),
        },
    }


_STATUS: Schema = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {"id": {"type": "string"}, "status": {"enum": ["pending", "cancelled", "deleted"]}},
}


def _job() -> Schema:
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 64}}
    status = {"application/json": {"schema": _STATUS}}
    unknown = _refusal("Unknown, deleted, or its time is over")
    away = _refusal("The store of results does not answer")
    return {
        "parameters": [parameter],
        "get": {
            "operationId": "fetch",
            "summary": "The result of a job",
            "responses": {
                "200": {"description": "What the request would have been answered"},
                "202": {"description": "Not done yet", "content": status},
                "default": {"description": "What the request would have been answered", "content": _ERROR},
                "404": unknown,
                "503": away,
            },
        },
        "delete": {
            "operationId": "cancel",
            "summary": "Cancels a job, or forgets its result",
            "responses": {"200": {"description": "Gone", "content": status}, "404": unknown, "503": away},
        },
    }
