"""From pydantic's JSON schema to what the API server takes: a structural schema (apiextensions.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serinus.api.cel import KEY

_KEPT = frozenset({
    "type", "description", "enum", "format", "pattern", "required", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", KEY,
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
})  # fmt: skip
_HANDLED = frozenset({"$ref", "$defs", "anyOf", "title", "default", "properties", "items", "additionalProperties"})
_INT32_MAX = 2**31 - 1


def structural(schema: Mapping[str, Any], server_defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The structural form: `$ref`s inlined, Optional unwrapped, defaults told in descriptions.

    Unknown fields are refused by the API server itself (`fieldValidation: Strict`, kubectl's default), so
    `additionalProperties: false` goes.

    Args:
        schema: what `model_json_schema()` returns.
        server_defaults: the defaults that stay in the schema, by dotted path.

    Raises:
        ValueError: the schema holds a keyword or a union that no structural schema can express.
    """
    return _Normaliser(schema.get("$defs", {}), server_defaults).node(schema, ())


class _Normaliser:
    def __init__(self, definitions: Mapping[str, Any], server_defaults: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._server_defaults = server_defaults

    def node(self, raw: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        where = ".".join(path)
        source = self._flat(raw, where)
        if unknown := source.keys() - _KEPT - _HANDLED:
            raise ValueError(f"{where or 'the root'}: no structural schema has {', '.join(sorted(unknown))}")
        node = {key: source[key] for key in ("type", "description", *sorted(_KEPT)) if key in source}
        if description := _paragraph(source.get("description", ""), source.get("default")):
            node["description"] = description
        if source.get("type") == "integer":
            node["format"] = "int32" if source.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
        if where in self._server_defaults:
            node["default"] = self._server_defaults[where]
        if "properties" in source:
            node["properties"] = {name: self.node(value, (*path, name)) for name, value in source["properties"].items()}
        if "items" in source:
            node["items"] = self.node(source["items"], (*path, "[]"))
        if isinstance(values := source.get("additionalProperties"), Mapping):
            node["additionalProperties"] = self.node(values, (*path, "*"))
        return node

    def _flat(self, raw: Mapping[str, Any], where: str) -> dict[str, Any]:
        """`raw` without `$ref` and Optional; what stands beside them wins over what they point at."""
        flat = dict(raw)
        while "$ref" in flat or "anyOf" in flat:
            if "$ref" in flat:
                inner = self._definitions[flat.pop("$ref").removeprefix("#/$defs/")]
            else:
                choices = [choice for choice in flat.pop("anyOf") if choice.get("type") != "null"]
                if len(choices) != 1:
                    raise ValueError(f"{where}: no structural schema has a union of types")
                inner = choices[0]
            flat = {**inner, **flat}
        return flat


def _paragraph(text: str, default: Any) -> str:
    words = " ".join(text.split())
    if isinstance(default, bool) or default is None or isinstance(default, (dict, list)) or default == "":
        return words
    return f"{words} Default: {default}.".strip()
