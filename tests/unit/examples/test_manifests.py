"""Manifests under examples/ are what the operator takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from serinus.api.spec import ModelDeploymentSpec

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_parses(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert document["kind"] == "ModelDeployment"
    spec = ModelDeploymentSpec.model_validate(document["spec"])
    assert len(spec.release.plan_steps()) > 1
