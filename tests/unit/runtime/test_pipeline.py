"""Graphs of steps in one model directory: what runs, in which order, and what is refused and why."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import EngineError, graph
from serinus_runtime.engine.graph import PipelineError
from serinus_runtime.engine.pipeline import _average, _vote, open_engine
from serinus_runtime.engine.registry import choose
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.server import load_model
from unit.runtime import support


def _scale(directory: Path, file: str, factor: float) -> None:
    """x FP32 [-1, 3] -> y FP32 [-1, 3] = factor x, and label INT64 [-1], the place of the largest."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3]),
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
    ]
    support._save(directory, nodes, [x], outputs, [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])])
    (directory / "model.onnx").rename(directory / file)


def _directory(path: Path, pipeline: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for file, factor in (("one.onnx", 1.0), ("two.onnx", 2.0), ("minus.onnx", -1.0)):
        _scale(path, file, factor)
    (path / "pipeline.json").write_text(json.dumps(pipeline))
    (path / "features.py").write_text("def add(inputs):\n    return {'sum': inputs['a'] + inputs['b']}\n")
    return path


def _step(name: str, file: str, source: str = "request.x") -> dict[str, Any]:
    return {"name": name, "onnx": file, "inputs": {"x": source}}


_ENSEMBLE: dict[str, Any] = {
    "steps": [
        _step("a", "one.onnx"),
        _step("b", "two.onnx"),
        _step("c", "minus.onnx", "b.y"),
        {"name": "mean", "combine": "mean", "inputs": ["a.y", "b.y", "c.y"]},
        {"name": "heavy", "combine": "weighted", "weights": [3, 1], "inputs": ["a.y", "b.y"]},
        {"name": "label", "combine": "vote", "inputs": ["a.label", "b.label", "c.label"]},
        {"name": "rule", "inputs": ["mean.value"], "rule": {"thresholds": {"block": 0.8, "step_up": 0.6}, "column": 2}},
    ],
    "outputs": {"score": "mean.value", "heavy": "heavy.value", "label": "label.value", "decided": "rule.decision"},
}


def test_an_ensemble_of_models_is_served_as_one(tmp_path: Path) -> None:
    directory = _directory(tmp_path / "m", _ENSEMBLE)
    assert choose(directory, "auto") == "pipeline"
    with support.Live(load_model(Config(model_dir=directory, instances=2))) as live:
        metadata = json.loads(support.request(live.port, "GET", "/v2/models/model")[2])
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        assert [spec["name"] for spec in metadata["outputs"]] == ["score", "heavy", "label", "decided"]
        assert metadata["platform"] == "serinus_pipeline"
        status, _, answer = support.infer(live.port, [1, 2, 3], [0.3, 0.6, 2.0])
        assert status == 200
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        # a = x, b = 2 x, c = -2 x.
        np.testing.assert_allclose(found["score"], np.array([1, 2, 3, 0.3, 0.6, 2.0]) / 3, rtol=1e-6)
        np.testing.assert_allclose(found["heavy"], np.array([1, 2, 3, 0.3, 0.6, 2.0]) * 1.25, rtol=1e-6)
        assert found["label"] == [2, 2]
        assert found["decided"] == ["block", "step_up"]
        config = json.loads(support.request(live.port, "GET", "/v2/models/model/config")[2])
        assert config["parameters"]["steps"]["string_value"] == "a + b > c + heavy > mean + label > rule"
        metrics = live.metrics()
        assert all(metrics[f'serinus_step_duration_seconds_count{{step="{step}"}}'] > 0 for step in "abc")


def test_steps_that_do_not_depend_on_each_other_run_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(Config(model_dir=_directory(tmp_path / "m", _ENSEMBLE)))
    barrier = threading.Barrier(2)
    run = engine._engines["a"].run

    def meet(inputs: Any, outputs: Sequence[str]) -> list[Array]:
        barrier.wait(support.WAIT)
        return run(inputs, outputs)

    for name in "ab":
        monkeypatch.setattr(engine._engines[name], "run", meet)
    x = np.full((1, 3), 3, np.float32)
    assert engine.run({"x": x}, ["decided"])[0].tolist() == ["block"]
    engine.close()


def test_a_python_step_between_models(tmp_path: Path) -> None:
    pipeline = {
        "steps": [
            _step("a", "one.onnx"),
            {
                "name": "joined",
                "python": "features.py",
                "function": "add",
                "inputs": {"a": "a.y", "b": "request.more"},
                "outputs": [{"name": "sum", "datatype": "FP32", "shape": [-1, 3]}],
            },
            _step("b", "two.onnx", "joined.sum"),
        ],
        "inputs": [{"name": "more", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": {"y": "b.y"},
    }
    directory = _directory(tmp_path / "m", pipeline)
    with pytest.raises(FailureError, match="SERINUS_ALLOW_PYTHON=true"):
        open_engine(Config(model_dir=directory))
    engine = open_engine(Config(model_dir=directory, allow_python=True))
    try:
        assert [spec.name for spec in engine.signature.inputs] == ["more", "x"]
        assert (engine.signature.batched, engine.inline) == (True, False)
        inputs = {"x": np.ones((2, 3), np.float32), "more": np.full((2, 3), 2, np.float32)}
        np.testing.assert_array_equal(engine.run(inputs, ["y"])[0], np.full((2, 3), 6))
        inputs["more"] = inputs["more"][:, :2]
        with pytest.raises(EngineError, match="step 'joined': ValueError: operands could not be broadcast"):
            engine.run(inputs, ["y"])
    finally:
        engine.close()


def _changed(**changes: Any) -> dict[str, Any]:
    return {**_ENSEMBLE, **changes}


@pytest.mark.parametrize(
    ("pipeline", "text"),
    [
        ([], "it is not understood"),
        ({"steps": [], "outputs": {"y": "a.y"}}, "from 1 to 64 steps, and outputs"),
        ({"steps": [_step("a", "one.onnx")], "outputs": {}}, "from 1 to 64 steps, and outputs"),
        ({"steps": [_step("a", "one.onnx")] * 2, "outputs": {"y": "a.y"}}, "step 'a': the name must be a word"),
        ({"steps": [_step("request", "one.onnx")], "outputs": {"y": "request.x"}}, "step 'request': the name"),
        (
            {"steps": [_step("a", "one.onnx", "b.y"), _step("b", "two.onnx", "a.y")], "outputs": {"y": "a.y"}},
            "the steps a, b wait for each other: there is a cycle",
        ),
        ({"steps": [_step("a", "one.onnx", "q.y")], "outputs": {"y": "a.y"}}, "'q.y' is neither request.NAME nor"),
        ({"steps": [_step("a", "one.onnx", "x")], "outputs": {"y": "a.y"}}, "'x' is neither request.NAME nor"),
        ({"steps": [_step("a", "one.onnx")], "outputs": {"y": "a.z"}}, "step 'a' gives no 'z'; it gives y, label"),
        (
            {"steps": [_step("a", "one.onnx"), _step("b", "two.onnx")], "outputs": {"y": "a.y"}},
            "step 'b' leads to no output",
        ),
        (
            {"steps": [{"name": "a", "onnx": "one.onnx", "inputs": {"z": "request.x"}}], "outputs": {"y": "a.y"}},
            "step 'a': its input 'x' comes from nowhere|say in inputs what 'request.x' is",
        ),
        (
            {"steps": [_step("a", "one.onnx"), _step("b", "two.onnx", "a.label")], "outputs": {"y": "b.y"}},
            "step 'b': input 'x' is FP32, but 'a.label' is INT64",
        ),
        (
            _changed(inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]),
            r"input 'x' is \[-1, 3\], but 'request.x' is \[-1, 4\]",
        ),
        (_changed(inputs=[{"name": "q", "datatype": "FP32", "shape": [-1]}]), "input 'q' is taken by no step"),
        (_changed(inputs=[{"name": "x", "datatype": "TEXT", "shape": [-1]}]), "no datatype 'TEXT'"),
        ({"steps": [{"name": "a", "inputs": {"x": "request.x"}}], "outputs": {"y": "a.y"}}, "say one of onnx, python"),
        (
            {"steps": [{"name": "a", "combine": "median", "inputs": ["request.x"]}], "outputs": {"y": "a.value"}},
            "combine is one of mean, weighted, vote",
        ),
        (
            {"steps": [_step("a", "one.onnx"), {"name": "m", "combine": "vote", "inputs": ["a.y"]}],
             "outputs": {"y": "m.value"}},
            "labels are voted on, not FP32",
        ),
        (
            {"steps": [_step("a", "one.onnx"), {"name": "m", "combine": "mean", "inputs": ["a.y", "a.label"]}],
             "outputs": {"y": "m.value"}},
            r"'a.label' is INT64 \[-1\], but 'a.y' is FP32",
        ),
        (
            {"steps": [_step("a", "one.onnx"), {"name": "m", "combine": "weighted", "weights": [1, 2],
             "inputs": ["a.y"]}], "outputs": {"y": "m.value"}},
            "give a weight for each input",
        ),
        ({"steps": [_step("a", "../one.onnx")], "outputs": {"y": "a.y"}}, "leaves the model directory"),
        ({"steps": [_step("a", "none.onnx")], "outputs": {"y": "a.y"}}, r"none\.onnx does not exist"),
        ({"steps": [{**_step("a", "one.onnx"), "gpu": True}], "outputs": {"y": "a.y"}}, "unknown field `gpu`"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_pipeline(tmp_path: Path, pipeline: object, text: str) -> None:
    with pytest.raises(FailureError, match=text) as caught:
        open_engine(Config(model_dir=_directory(tmp_path / "m", pipeline)))
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12).flatmap(lambda count: st.lists(
    st.lists(st.integers(0, count - 1), min_size=1, max_size=3), min_size=count, max_size=count
)))  # fmt: skip
def test_levels_come_after_what_they_need_or_there_is_a_cycle(needs: list[list[int]]) -> None:
    # Step i takes what its numbers give; its own number, and all above it, are a cycle sooner or later or fine.
    steps = [
        {"name": f"s{at}", "combine": "mean", "inputs": ["request.x", *(f"s{other}.value" for other in others)]}
        for at, others in enumerate(needs)
    ]
    last = {"name": "last", "combine": "mean", "inputs": [f"s{at}.value" for at in range(len(needs))]}
    text = json.dumps({"steps": [*steps, last], "outputs": {"y": "last.value"}}).encode()
    reach: set[tuple[int, int]] = {(at, other) for at, others in enumerate(needs) for other in others}
    for _ in needs:
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    if any((at, at) in reach for at in range(len(needs))):
        with pytest.raises(PipelineError, match="cycle"):
            graph.read(text)
        return
    levels = graph.levels(graph.read(text))
    place = {step.name: at for at, level in enumerate(levels) for step in level}
    assert sorted(place) == sorted(step["name"] for step in [*steps, last])
    assert all(place[f"s{at}"] > place[f"s{other}"] for at, others in enumerate(needs) for other in others)


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_a_vote_is_the_most_frequent_label_and_the_first_among_equals(votes: list[list[int]]) -> None:
    found = _vote([np.array(vote) for vote in votes])
    texts = _vote([np.array([str(label) for label in vote], dtype=object) for vote in votes])
    for at in range(4):
        labels = [vote[at] for vote in votes]
        best = max(labels, key=lambda label: (labels.count(label), -labels.index(label)))
        assert (found[at], texts[at]) == (best, str(best))


def test_an_average_keeps_its_type_and_sums_in_double_precision() -> None:
    mean = _average([np.array([60000], np.float16), np.array([60000], np.float16)], (1.0, 1.0))
    assert (mean.dtype, mean.tolist()) == (np.float16, [60000.0])
