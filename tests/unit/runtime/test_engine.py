"""ONNX models: what loads, what is refused and why, and warm-up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serinus_runtime.engine import TensorSpec, onnx, synthetic_inputs
from serinus_runtime.examples import read as read_examples
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.warmup import measure, warm_up
from unit.runtime import support


def test_signature_and_answers(sum_dir: Path) -> None:
    engine = onnx.load(sum_dir)
    assert engine.signature.batched
    assert engine.signature.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    (y,) = engine.run({"x": np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)}, ["y"])
    np.testing.assert_array_equal(y, [[6], [15]])
    assert engine.runtime.startswith("onnxruntime-")


def test_text_inputs(tmp_path: Path) -> None:
    engine = onnx.load(support.columns_model(tmp_path / "m"))
    inputs = synthetic_inputs(engine.signature, 2)
    assert inputs["category"].tolist() == [[""], [""]]
    inputs["category"] = np.array([["é"], ["b"]], dtype=object)
    seen, score = engine.run(inputs, ["seen", "score"])
    assert seen.tolist() == [["é"], ["b"]]
    assert score.shape == (2, 1)
    assert warm_up(engine, 8).signature.batched


def test_a_model_with_a_fixed_number_of_rows_is_not_batched(tmp_path: Path) -> None:
    engine = onnx.load(support.sum_model(tmp_path / "m", rows=1))
    assert not engine.signature.batched
    assert not warm_up(engine, 8).signature.batched
    assert synthetic_inputs(engine.signature, 8)["x"].shape == (1, 3)


def test_a_model_that_mixes_rows_is_not_batched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = onnx.load(support.mixing_model(tmp_path / "m"))
    assert engine.signature.batched
    assert not warm_up(engine, 8).signature.batched
    assert "batching is off" in capsys.readouterr().err


def test_a_model_that_fails_in_warm_up(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match=r"fails on zeros of shape \{'x': \[1, 3\]\}") as caught:
        warm_up(onnx.load(support.failing_model(tmp_path / "m")), 8)
    assert caught.value.reason is Reason.WARMUP_FAILED


def test_a_zipmap_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match="zipmap=False") as caught:
        onnx.load(support.zipmap_model(tmp_path / "m"))
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED


@pytest.mark.parametrize("content", [None, b"", b"not a model", bytes(1000)])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(FailureError, match=r"model\.onnx") as caught:
        onnx.load(tmp_path)
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED
    assert "\n" not in caught.value.message


def test_warm_up_measures_what_batches_cost(sum_dir: Path, tmp_path: Path) -> None:
    engine = onnx.load(sum_dir)
    costs = measure(engine, engine.signature, 12)
    assert sorted(costs) == [1, 2, 4, 8, 16]
    assert all(seconds > 0 for seconds in costs.values())
    fixed = onnx.load(support.sum_model(tmp_path / "m", rows=1))
    assert sorted(measure(fixed, fixed.signature, 12)) == [1]


@pytest.mark.parametrize(("rows", "batched"), [(None, True), (2, False)])
def test_examples_go_round_until_there_are_enough(tmp_path: Path, rows: int | None, batched: bool) -> None:
    directory = support.sum_model(tmp_path / "m", rows=rows)
    np.savez(directory / "warmup.npz", x=np.arange(9, dtype=np.float32).reshape(3, 3))
    engine = onnx.load(directory)
    examples = read_examples(directory, engine.signature)
    assert examples is not None
    assert (examples.file, examples.rows) == ("warmup.npz", 3)
    made = examples.at(engine.signature, 5)["x"]
    assert made[:, 0].tolist() == ([0, 3, 6, 0, 3] if batched else [0, 3])
    assert warm_up(engine, 8, examples=examples).signature.batched == batched
    assert list(measure(engine, engine.signature, 4, examples)) == ([1, 2, 4] if batched else [1])
