"""What the OpenAPI document says of the repository's index, as `app` answers it."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
INDEX = "/v2/repository/index"
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_REFUSALS = {
    "400": "The request is wrong; the text says where",
    "413": "The body is too large",
    "415": "The body is compressed",
    "429": "Too many large requests are being received; see Retry-After",
    "500": "It failed; the log says why",
}


def index(name: str, version: str) -> Schema:
    """The operations on INDEX. It is answered with 200 whatever the model's state is: that is what it tells."""
    entry = {
        "name": {"const": name},
        "version": {"const": version},
        "state": {"enum": ["READY", "UNLOADING", "UNAVAILABLE"]},
        "reason": {"type": "string"},
    }
    told = {
        "type": "array",
        "maxItems": 1,
        "items": {
            "type": "object",
            "required": list(entry),
            "properties": entry,
            "additionalProperties": False,
        },
    }
    asked = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    return {
        "post": {
            "operationId": "index",
            "summary": "The models of this server, and their states",
            "description": "Of the model repository extension. With ready: true, only those that are ready.",
            "requestBody": {"required": False, "content": {"application/json": {"schema": asked, "example": {}}}},
            "responses": {
                "200": {"description": "The index", "content": {"application/json": {"schema": told}}},
                **{code: {"description": text, "content": _ERROR} for code, text in _REFUSALS.items()},
            },
        }
    }
