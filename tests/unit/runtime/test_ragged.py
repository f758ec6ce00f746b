"""Requests of different lengths in one batch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serinus_runtime.batching import Answer, Batcher
from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import Signature, TensorSpec, onnx
from serinus_runtime.failures import FailureError
from serinus_runtime.ragged import Ragged, Side
from serinus_runtime.server import load_model
from serinus_runtime.warmup import warm_up
from unit.runtime import support
from unit.runtime.test_batching import World

_SIGNATURE = Signature(
    (TensorSpec("t", "INT64", (-1, -1)), TensorSpec("w", "FP32", (-1, 2))),
    (TensorSpec("doubled", "INT64", (-1, -1)), TensorSpec("total", "INT64", (-1,))),
    batched=True,
)


class _Tokens(World):
    """`doubled` is as long as `t`; `total` is its sum. The shapes that come are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        t: Any = inputs["t"]
        assert len(inputs["w"]) == len(t)
        self.shapes.append(t.shape)
        self.batches.append((self.time, len(t)))
        made = {"doubled": t * 2, "total": t.sum(axis=1)}
        return [made[name] for name in outputs]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40)), min_size=1, max_size=30),
    st.sampled_from([(), (8,), (4, 16, 32)]),
)
def test_everybody_gets_the_length_that_was_sent(requests: list[tuple[int, int]], buckets: tuple[int, ...]) -> None:
    world = _Tokens()
    ragged = Ragged({"t": Side(axis=1, pad=0, buckets=buckets)}, _SIGNATURE)
    batcher = Batcher(world.run, world, world, max_size=8, timeout=1e6, ragged=ragged)
    answers: dict[int, Answer | Exception] = {}
    sent = []
    for index, (rows, length) in enumerate(requests):
        t = np.full((rows, length), index + 1, np.int64)
        sent.append(t)
        inputs: dict[str, Any] = {"t": t, "w": np.zeros((rows, 2), np.float32)}
        batcher.submit(
            inputs, rows, ("total", "doubled"), lambda answer, index=index: answers.__setitem__(index, answer)
        )
    world.until(1000)
    for index, t in enumerate(sent):
        answer = answers[index]
        assert isinstance(answer, Answer)
        np.testing.assert_array_equal(answer.outputs["doubled"], t * 2)
        np.testing.assert_array_equal(answer.outputs["total"], t.sum(axis=1))
    for rows, width in world.shapes:
        assert rows <= 8
        assert not buckets or width in buckets or width > buckets[-1]
    if not buckets:
        lengths = sorted({length for _, length in requests})
        assert all(width in lengths for _, width in world.shapes)


def test_lengths_share_a_batch() -> None:
    world = _Tokens()
    ragged = Ragged({"t": Side(buckets=(16, 32))}, _SIGNATURE)
    batcher = Batcher(world.run, world, world, max_size=8, ragged=ragged)
    for length in (1, 5, 9, 16, 17, 40, 3):
        inputs: dict[str, Any] = {"t": np.ones((1, length), np.int64), "w": np.zeros((1, 2), np.float32)}
        batcher.submit(inputs, 1, ("total",), lambda _: None)
    world.until(1000)
    assert sorted(world.shapes) == [(1, 16), (1, 32), (1, 40), (4, 16)]


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        ({"q": Side()}, "no input 'q'; it takes t, w"),
        ({"w": Side(axis=1)}, "axis 1 of input 'w', of shape [-1, 2], is not open"),
        ({"t": Side(axis=0)}, "axis 0"),
        ({"t": Side(axis=2)}, "axis 2"),
        ({"t": Side(buckets=(4, 4))}, "must rise"),
        ({"t": Side(buckets=(0, 4))}, "above 0"),
        ({"t": Side(pad="x")}, "'x' is no INT64"),
        ({"t": Side(pad="7")}, "'7' cannot pad INT64"),
    ],
)
def test_what_cannot_be_ragged(sides: dict[str, Side], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        Ragged(sides, _SIGNATURE)


def _tokens_model(directory: Path, ragged: object) -> Path:
    """t FP32 [-1, -1] -> doubled FP32 [-1, -1] and total FP32 [-1]."""
    nodes = [
        helper.make_node("Add", ["t", "t"], ["doubled"]),
        helper.make_node("ReduceSum", ["t", "one"], ["total"], keepdims=0),
    ]
    t = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["rows", "length"])
    outputs = [
        helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["rows", "length"]),
        helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows"]),
    ]
    support._save(directory, nodes, [t], outputs, [helper.make_tensor("one", TensorProto.INT64, [1], [1])])
    (directory / "model.json").write_text(json.dumps({"ragged": ragged}))
    return directory


def test_a_model_says_what_is_ragged(tmp_path: Path) -> None:
    directory = _tokens_model(tmp_path / "m", {"t": {"axis": 1, "pad": 0, "buckets": [4, 8]}})
    loaded = load_model(Config(model_dir=directory))
    assert (loaded.signature.batched, loaded.costs) == (True, {})
    with support.Live(loaded) as live:
        for length in (1, 3, 4, 6, 20):
            tensor = {"name": "t", "shape": [1, length], "datatype": "FP32", "data": [2] * length}
            body = json.dumps({"inputs": [tensor]}).encode()
            status, _, answer = support.request(live.port, "POST", "/v2/models/model/infer", body)
            doubled, total = json.loads(answer)["outputs"]
            assert (status, doubled["shape"], doubled["data"]) == (200, [1, length], [4] * length)
            assert total["data"] == [2 * length]
    with pytest.raises(FailureError, match=r"model\.json: ragged: axis 3 of input 't'"):
        load_model(Config(model_dir=_tokens_model(tmp_path / "n", {"t": {"axis": 3}})))


def test_warm_up_runs_every_shape_there_will_be(tmp_path: Path) -> None:
    engine = onnx.load(_tokens_model(tmp_path / "m", {}))
    seen = []

    class Watched:
        signature = engine.signature

        def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
            seen.append(inputs["t"].shape)
            return engine.run(inputs, outputs)

    ragged = Ragged({"t": Side(buckets=(4, 8))}, engine.signature)
    assert warm_up(Watched(), 16, (8, 64), ragged.lengths()).signature.batched  # type: ignore[arg-type]
    assert set(seen) == {(rows, length) for rows in (1, 8, 16) for length in (4, 8)}
