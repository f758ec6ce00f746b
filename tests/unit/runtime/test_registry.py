"""Which engine is chosen, and what the server shows and does of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from serinus_runtime.config import Config, from_environment
from serinus_runtime.engine import registry
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.server import Loaded, load_model
from unit.runtime import support


@pytest.mark.parametrize(
    ("files", "wanted", "engine"),
    [
        (["model.onnx"], "auto", "onnx"),
        (["model.pt"], "auto", "torch"),
        (["model.pt2", "model.pt"], "auto", "torch"),
        (["fraud.mar"], "auto", "torchserve"),
        (["pipeline.json", "model.onnx", "model.pt"], "auto", "pipeline"),
        (["model.onnx", "model.pt"], "torch", "torch"),
        ([], "onnx", "onnx"),
    ],
)
def test_the_files_tell_the_engine(tmp_path: Path, files: list[str], wanted: str, engine: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert registry.choose(tmp_path, wanted) == engine


@pytest.mark.parametrize(
    ("files", "wanted", "reason", "text"),
    [
        ([], "auto", Reason.MODEL_LOAD_FAILED, r"holds one of pipeline\.json, model\.onnx, model\.pt2"),
        (["model.onnx", "a.mar"], "auto", Reason.INVALID_CONFIG, "onnx and torchserve; say with SERINUS_ENGINE"),
        (["model.onnx"], "tensorflow", Reason.INVALID_CONFIG, "no engine 'tensorflow'; write auto, pipeline, onnx"),
    ],
)
def test_no_engine_or_no_single_one(tmp_path: Path, files: list[str], wanted: str, reason: Reason, text: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(FailureError, match=text) as caught:
        registry.choose(tmp_path, wanted)
    assert caught.value.reason is reason


def test_an_engine_that_the_image_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.KINDS, "none", registry.Kind("none_such", ()))
    with pytest.raises(FailureError, match="the engine none is not part of this image") as caught:
        registry.open_engine(Config(model_dir=tmp_path, engine="none"))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_the_environment_names_the_engine(sum_dir: Path) -> None:
    config = from_environment({"SERINUS_ENGINE": "onnx", "SERINUS_MODEL_DIR": str(sum_dir)})
    assert load_model(config).engine.backend == "onnxruntime"


class _Mortal(support.GateEngine):
    details = {"devices": "none"}
    living = True
    closed = 0

    def alive(self) -> bool:
        return self.living

    def close(self) -> None:
        self.closed += 1

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        family = GaugeMetricFamily("serinus_gate_open", "Is it?", labels=names)
        family.add_metric(values, 1)
        yield family


def test_the_server_shows_its_engine_and_closes_it() -> None:
    engine = _Mortal()
    with support.Live(Loaded(engine, engine.signature, "sha256:" + "0" * 64, 0.0)) as live:
        _, _, body = support.request(live.port, "GET", "/v2/models/model/config")
        config = json.loads(body)
        assert (config["platform"], config["backend"], config["instance_group"]) == ("gate", "gate", [{"count": 1}])
        assert config["parameters"] == {"runtime": {"string_value": "gate-1"}, "devices": {"string_value": "none"}}
        assert json.loads(support.request(live.port, "GET", "/v2/models/model")[2])["platform"] == "gate"
        assert live.metrics()["serinus_gate_open"] == 1
        assert support.request(live.port, "GET", "/v2/health/live")[0] == 200
        engine.living = False
        assert support.request(live.port, "GET", "/v2/health/live")[0] == 503
        assert support.request(live.port, "GET", "/v2/health/ready")[0] == 503
        assert engine.closed == 0
    assert engine.closed == 1


def test_an_engine_that_fails_in_warm_up_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = _Mortal()
    monkeypatch.setattr("serinus_runtime.loading.open_engine", lambda _: engine)
    monkeypatch.setattr(engine, "run", lambda *_: (_ for _ in ()).throw(support.EngineError("broken")))
    with pytest.raises(FailureError, match="broken"):
        load_model(Config(model_dir=tmp_path))
    assert engine.closed == 1
