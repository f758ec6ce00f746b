"""docs/runtime/observability.md and a live server name the same metrics and the same fields of the prediction log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from serinus_runtime.config import Config
from serinus_runtime.drift import reference
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.support import Live, infer, request

PAGE = (Path(__file__).parents[3] / "docs/runtime/observability.md").read_text()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, object]]:
    """Metric families with their types, and a line of the prediction log, of a server with everything switched on."""
    folder = tmp_path_factory.mktemp("told")
    directory = support.sum_model(folder / "m")
    x = np.random.default_rng(0).normal(size=(1000, 3))
    made = reference.make({"x[0]": x[:, 0]}, {"score": x.sum(axis=1)}, 1000)
    (directory / reference.FILE).write_bytes(reference.encode(made))
    (directory / "model.json").write_text(json.dumps({"preprocessing_hash": "p"}))
    settings = {"prediction_log": str(folder / "log"), "prediction_log_payloads": 1.0, "response_cache": 1 << 20}
    names = {"namespace": "shop", "deployment": "fraud", "revision": "r1"}
    with Live(load_model(Config(model_dir=directory)), model_dir=directory, **settings, **names) as live:
        assert infer(live.port, [1, 2, 3])[0] == 200
        text = request(live.server.metrics_port, "GET", "/metrics")[2].decode()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    return families, json.loads((folder / "log").read_text())


def _documented(heading: str) -> set[str]:
    """Names in the first column of the tables below `heading`."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return {re.sub(r"\{.*\}", "", name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_metric_is_documented(told: tuple[dict[str, str], dict[str, object]]) -> None:
    families, _ = told
    known = _documented("Metrics") | _documented("Drift")
    assert len(families) > 20
    for family in families:
        found = family in known or any(
            name.endswith("*") and family.startswith(name.removesuffix("*")) for name in known
        )
        assert found, f"docs/runtime/observability.md does not know {family}"


def test_every_field_of_the_prediction_log_is_documented(told: tuple[dict[str, str], dict[str, object]]) -> None:
    _, line = told
    assert set(line) <= _documented("Prediction log")
    assert len(line) > 15
