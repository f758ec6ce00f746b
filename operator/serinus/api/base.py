"""What everything in the resource has in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, JsonValue
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from serinus.api.cel import Cel, with_rules

ATOMIC: dict[str, JsonValue] = {"x-kubernetes-map-type": "atomic"}
"""Merged by key, a map whose last key goes becomes null in a server-side apply, which its own schema then refuses."""


class ApiModel(BaseModel):
    """Base of everything in the resource: camelCase on the wire, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )
    rules: ClassVar[tuple[Cel, ...]] = ()
    """Rules over several fields, for the API server."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler.resolve_ref_schema(handler(schema)), *cls.rules)
