"""`serinus render`: what the operator would apply for a ModelDeployment that is live, without any cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from serinus.api import KIND
from serinus.api.spec import ModelDeploymentSpec
from serinus.cli.picture import CliError
from serinus.objects.context import Context, Object, Settings
from serinus.objects.read import Children
from serinus.objects.render import render
from serinus.release.observed import Plan, RevisionPlan
from serinus.release.revisions import Revision


def read(path: str) -> list[Object]:
    """The ModelDeployments in a YAML file, `-` for standard input. Raises CliError."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except (OSError, yaml.YAMLError) as error:
        raise CliError(f"{path}: {error}") from None
    found = [each for each in documents if each.get("kind") == KIND]
    if not found:
        raise CliError(f"{path} holds no {KIND}")
    return found


def parsed(document: Object) -> ModelDeploymentSpec:
    """The spec of a document. Raises CliError with every complaint."""
    try:
        return ModelDeploymentSpec.model_validate(document.get("spec") or {})
    except ValidationError as error:
        lines = [f"spec.{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
        raise CliError("\n".join(lines)) from None


def objects(document: Object, image: str) -> list[Object]:
    """Everything that would be applied once the declared version is live. Raises CliError."""
    spec = parsed(document)
    meta = document.get("metadata") or {}
    name = meta.get("name", "model")
    context = Context(
        meta.get("namespace", "default"), name, "00000000-0000-0000-0000-000000000000", spec, Settings(image)
    )
    target = Revision.target(name, spec)
    plan = Plan((RevisionPlan(target, spec.scaling.min),), {target.name: 100}, target.name)
    made = render(context, plan, Children()).apply
    for obj in made:
        # They need a uid, which only a cluster gives.
        del obj["metadata"]["ownerReferences"]
    return made
