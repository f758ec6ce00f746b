"""The CRD, the chart's copy and the field reference are what the models say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from serinus.api import crd
from serinus.api.base import ApiModel
from serinus.api.cel import KEY
from serinus.api.schema import structural

ROOT = Path(__file__).parents[3]


def test_generated_files_are_current() -> None:
    assert crd.stale(ROOT) == [], "run `python -m serinus.api.crd`"


def test_check_tells_stale_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--check", "--root", str(tmp_path)]) == 1
    assert "run `python -m serinus.api.crd`" in capsys.readouterr().err
    assert crd.main(["--root", str(tmp_path)]) == 0
    assert crd.main(["--check", "--root", str(tmp_path)]) == 0


def test_chart_holds_the_same_schema() -> None:
    lines = crd.chart_yaml().splitlines()
    plain = yaml.safe_load("\n".join(line for line in lines if "{{" not in line and "resource-policy" not in line))
    assert plain["spec"] == yaml.safe_load(crd.crd_yaml())["spec"]


def nodes(node: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every node of a schema with its path."""
    found = [(path, node)]
    for name, value in node.get("properties", {}).items():
        found += nodes(value, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            found += nodes(node[key], f"{path}[]")
    return found


SPEC = nodes(crd.schema()["properties"]["spec"], "spec")


def test_everything_in_the_spec_is_bounded_for_the_cost_of_rules() -> None:
    for path, node in SPEC:
        if node["type"] == "string":
            assert "maxLength" in node or "enum" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "integer":
            assert "maximum" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_everything_in_the_spec_is_described_in_one_paragraph() -> None:
    for path, node in SPEC:
        if not path.endswith("[]"):
            assert node.get("description"), path
            assert "\n" not in node["description"], path


def test_only_the_floor_of_replicas_has_a_stored_default() -> None:
    assert {path for path, node in SPEC if "default" in node} == {"spec.scaling", "spec.scaling.min"}


def test_messages_are_one_line_without_a_full_stop() -> None:
    messages = [rule["message"] for _, node in nodes(crd.schema()) for rule in node.get(KEY, [])]
    assert len(messages) > 60
    for message in messages:
        assert "\n" not in message
        assert not message.endswith(".") or message.endswith("..."), message


def test_patterns_never_reach_the_spec_because_their_messages_help_nobody() -> None:
    assert [path for path, node in SPEC if "pattern" in node] == []


def test_a_union_is_refused() -> None:
    class Odd(ApiModel):
        field: int | str

    with pytest.raises(ValueError, match="field: no structural schema has a union of types"):
        structural(Odd.model_json_schema(), {})


def test_an_unknown_keyword_is_refused() -> None:
    class Odd(BaseModel):
        field: float = 0.0

    schema = Odd.model_json_schema()
    schema["properties"]["field"]["exclusiveMinimum"] = 0
    with pytest.raises(ValueError, match="field: no structural schema has exclusiveMinimum"):
        structural(schema, {})
