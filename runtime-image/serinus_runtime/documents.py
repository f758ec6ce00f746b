"""Answers that are the same for as long as a model is served: its configuration, OpenAPI document and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from serinus_runtime.about import About, has_rows
from serinus_runtime.engine import Engine, Signature, TensorSpec
from serinus_runtime.http import JSON
from serinus_runtime.openapi import Schema, openapi
from serinus_runtime.page import HTML

_HTML_TYPE = b"text/html; charset=utf-8"
_TYPES = {"BYTES": "TYPE_STRING"}


def paths(name: str, version: str) -> frozenset[bytes]:
    """Where documents are, known before the model is."""
    model = f"/v2/models/{name}"
    made = (f"{model}/config", f"{model}/versions/{version}/config", "/openapi.json", "/docs")
    return frozenset(path.encode() for path in made)


def documents(
    name: str,
    version: str,
    engine: Engine,
    signature: Signature,
    about: About,
    max_batch: int,
    describe: Callable[[Schema], Schema] = lambda document: document,
    unproved: str = "",
) -> Mapping[bytes, tuple[bytes, bytes]]:
    """By path: content type and body. `describe` adds what is switched on to the OpenAPI document.

    `unproved`: what warm-up could not prove.
    """
    config = msgspec.json.encode(_config(name, version, engine, signature, about, max_batch, unproved))
    described = msgspec.json.encode(describe(openapi(name, version, signature, about, rows=has_rows(signature))))
    model = f"/v2/models/{name}"
    return {
        f"{model}/config".encode(): (JSON, config),
        f"{model}/versions/{version}/config".encode(): (JSON, config),
        b"/openapi.json": (JSON, described),
        b"/docs": (_HTML_TYPE, HTML),
    }


def _config(
    name: str, version: str, engine: Engine, signature: Signature, about: About, max_batch: int, unproved: str
) -> dict[str, object]:
    """The model's configuration in Triton's words: dims without the row, where there are rows."""

    def tensor(spec: TensorSpec) -> dict[str, object]:
        dims = list(spec.shape[1:] if signature.batched else spec.shape)
        return {"name": spec.name, "data_type": _TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"), "dims": dims}

    config: dict[str, object] = {
        "name": name,
        "platform": engine.platform,
        "backend": engine.backend,
        "version_policy": {"specific": {"versions": [version]}},
        "max_batch_size": max_batch if signature.batched else 0,
        "input": [tensor(spec) for spec in signature.inputs],
        "output": [tensor(spec) for spec in signature.outputs],
        "instance_group": [{"count": engine.instances}],
    }
    parameters = {key: {"string_value": text} for key, text in {"runtime": engine.runtime, **engine.details}.items()}
    if signature.batched:
        config["dynamic_batching"] = {}
    if about.rule is not None:
        rule = {
            "output": about.rule.output,
            "column": about.rule.column,
            "thresholds": dict(about.rule.steps),
            "otherwise": about.rule.otherwise,
        }
        parameters["decision"] = {"string_value": msgspec.json.encode(rule).decode()}
    if unproved:
        parameters["unproved"] = {"string_value": unproved}
    config["parameters"] = parameters
    return config
