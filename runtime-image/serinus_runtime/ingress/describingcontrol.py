"""What the loading and unloading of the model adds to the OpenAPI document."""

from __future__ import annotations

from typing import Any

from serinus_runtime.indexdocument import INDEX

Schema = dict[str, Any]
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_UNLOADED = "A client has unloaded the model: load it, or ask another replica"


def describe_control(document: Schema, model: str) -> None:
    """Adds both operations, and to all that need a model what they say while it is unloaded."""
    paths: Schema = document["paths"]
    for path, operations in paths.items():
        if path in ("/v2", INDEX) or path.startswith("/v2/health/") or path.endswith("/ready"):
            continue
        for operation in operations.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].setdefault("404", _refusal(_UNLOADED))
    address = f"/v2/repository/models/{model}"
    unload = _operation(
        "unload", "Gives the model up: answered once its last answers are out", {"unload_dependents": {}}
    )
    load = _operation("load", "Loads the model anew from its directory: answered once it serves", {})
    load["responses"]["400"] = _refusal("The request is wrong, or the model could not be loaded; the old one goes on")
    paths[f"{address}/unload"] = {"post": unload}
    paths[f"{address}/load"] = {"post": load}


def _operation(name: str, summary: str, parameters: Schema) -> Schema:
    body = {
        "type": "object",
        "properties": {
            "parameters": {"type": "object", "properties": parameters, "additionalProperties": False},
        },
    }
    return {
        "operationId": name,
        "summary": summary,
        "description": "Of the model repository extension. It needs a key with scopes=control.",
        "requestBody": {"required": False, "content": {"application/json": {"schema": body, "example": {}}}},
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}},
            "400": _refusal("The request is wrong; the text says where"),
            "401": _refusal("No key, or one that is not known"),
            "403": _refusal("The key may not load and unload, or nobody may since there are no keys"),
            "413": _refusal("The body is too large"),
            "415": _refusal("The body is compressed"),
            "429": _refusal("Too many loads and unloads wait already; see Retry-After"),
            "500": _refusal("It failed; the log says why"),
            "503": _refusal("Starting, or going away; ask another replica"),
        },
    }


def _refusal(text: str) -> Schema:
    return {"description": text, "content": _ERROR}
