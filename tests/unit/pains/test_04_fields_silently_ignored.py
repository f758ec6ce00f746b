"""Elsewhere a field is taken and then ignored in some mode: here each field is used, or refused with words."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from serinus.api.podspec import Toleration
from serinus.api.spec import ModelDeploymentSpec, ParentRef
from unit.release.world import spec

OPERATOR = Path(__file__).parents[3] / "operator" / "serinus"
SHOWN_ONLY = {"availability"}
"""Fields that dashboards and alerts read from the object itself."""
PASSED_ON = (ParentRef, Toleration)
"""Copied whole into the object that they belong to."""


def fields(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """Names of all fields below a model."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield name
        for inner in _models(field.annotation):
            if inner not in PASSED_ON:
                yield from fields(inner, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def test_every_field_is_read_somewhere() -> None:
    # The api package declares fields and checks them; what acts on them is everything else.
    code = [path for path in OPERATOR.rglob("*.py") if path.parent.name != "cli"]
    declared = {path for path in code if path.parent.name == "api"}
    acting = "\n".join(path.read_text() for path in code if path not in declared)
    helpers = "\n".join(line for path in declared for line in path.read_text().splitlines() if "self." in line)
    unread = [
        name
        for name in fields(ModelDeploymentSpec, set())
        if not re.search(rf"[.\"]{name}\b", acting)
        and not re.search(rf"\bself\.([\w.]+\.)?{name}\b", helpers)
        and name not in SHOWN_ONLY
    ]
    assert unread == [], "fields that nothing reads"


@pytest.mark.parametrize("where", ["", "model", "runtime", "scaling", "route", "slo", "release"])
def test_an_unknown_field_is_refused_at_every_level(where: str) -> None:
    document = spec().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    (document.setdefault(where, {}) if where else document)["canaryTrafficPercent"] = 10
    with pytest.raises(ValidationError, match="canaryTrafficPercent"):
        ModelDeploymentSpec.model_validate(document)
