"""BF16: the numbers against ml_dtypes and Python's own arithmetic, and a model that takes and gives them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serinus_runtime import bfloat16
from serinus_runtime.binary import from_raw, to_raw
from serinus_runtime.config import Config
from serinus_runtime.engine.onnxoptions import OnnxOptions
from serinus_runtime.failures import FailureError
from serinus_runtime.server import load_model
from unit.runtime.support import Live, request

_FLOAT = st.integers(0, (1 << 32) - 1)
"""The bits of a float32: NaNs, infinities and denormals as often as they come."""


@given(st.lists(_FLOAT, max_size=20))
def test_numbers_are_rounded_as_others_do(bits: list[int]) -> None:
    numbers = np.array(bits, np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        want = numbers.astype(ml_dtypes.bfloat16)
    got = bfloat16.widened(bfloat16.words(numbers))
    assert np.array_equal(got, want.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(got), np.signbit(numbers))


@given(st.lists(st.integers(0, (1 << 16) - 1), max_size=20))
def test_every_number_of_the_wire_comes_back(words: list[int]) -> None:
    raw = struct.pack(f"<{len(words)}H", *words)
    array = from_raw("x", "BF16", [len(words)], memoryview(raw))
    back = struct.unpack(f"<{len(words)}H", bytes(to_raw(array, "BF16")))
    for word, got in zip(words, back, strict=True):
        assert got == (word | 0x40 if word & 0x7FFF > 0x7F80 else word)


def test_the_order_of_rows_is_kept_whatever_lies_in_memory() -> None:
    table = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert bfloat16.widened(np.frombuffer(bfloat16.to_raw(table), "<u2")).tolist() == [0, 3, 1, 4, 2, 5]
    assert bytes(to_raw(np.empty((0, 2), np.float32), "BF16")) == b""


def test_what_is_too_large_does_not_become_infinite() -> None:
    largest = np.float32((2 - 2.0**-7) * 2.0**127)
    assert bfloat16.rounded(np.array([largest, np.inf, -np.inf])).tolist() == [largest, np.inf, -np.inf]
    with pytest.raises(OverflowError):
        bfloat16.rounded(np.array([3.4e38], np.float32))


def halves_model(directory: Path) -> Path:
    """a BF16 [-1, 4] and bias FP32 [-1, 2] -> y BF16 [-1, 2] = a w + bias, total FP32 [-1, 2], the same unrounded."""
    directory.mkdir(parents=True)
    weights = onnx.numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["a"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["wide", "w"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["total"]),
            helper.make_node("Cast", ["total"], ["y"], to=TensorProto.BFLOAT16),
        ],
        "halves",
        [
            helper.make_tensor_value_info("a", TensorProto.BFLOAT16, [None, 4]),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT, [None, 2]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [None, 2]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [None, 2]),
        ],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(directory / "model.onnx"))
    return directory


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = halves_model(tmp_path_factory.mktemp("models") / "halves")
    with Live(load_model(Config(model_dir=folder)), model_dir=folder, grpc_port=0) as live:
        yield live


def _ask(live: Live, a: Any, bias: Any, path: str = "/v2/models/model/infer") -> tuple[int, Any]:
    tensors = [
        {"name": "a", "datatype": "BF16", "shape": [len(a), 4], "data": a},
        {"name": "bias", "datatype": "FP32", "shape": [len(a), 2], "data": bias},
    ]
    status, _, body = request(live.port, "POST", path, json.dumps({"inputs": tensors}).encode())
    return status, json.loads(body)


def test_a_model_in_json(halves: Live) -> None:
    status, told = _ask(halves, [[1, 2, 3, 4.5], [0.1, 0, 0, 0]], [[0.5, 0.25], [1.0, 0]])
    assert status == 200
    y, total = told["outputs"]
    assert (y["datatype"], total["datatype"]) == ("BF16", "FP32")
    assert y["data"][:2] == [43.5, 53.75]
    assert total["data"][3] == pytest.approx(0.10009765625, abs=1e-7), "0.1 in BF16 before it is multiplied by 1"
    assert y["data"][3] == pytest.approx(0.10009765625, abs=1e-7)


def test_rows_take_numbers_as_ever(halves: Live) -> None:
    row = {"a": [1, 2, 3, 4.5], "bias": [0.5, 0.25]}
    status, _, body = request(halves.port, "POST", "/predict", json.dumps(row).encode())
    assert status == 200
    assert json.loads(body) == {"y": [43.5, 53.75], "total": [43.5, 53.75]}
    status, _, body = request(halves.port, "POST", "/predict", json.dumps({**row, "a": [3.4e38, 0, 0, 0]}).encode())
    assert (status, json.loads(body)["error"]) == (400, "column 'a': a value does not fit in BF16")


def test_what_bf16_cannot_hold_is_refused(halves: Live) -> None:
    assert _ask(halves, [[3.39e38, 0, 0, 0]], [[0, 0]])[0] == 200
    status, told = _ask(halves, [[3.4e38, 0, 0, 0]], [[0, 0]])
    assert (status, told["error"]) == (400, "input 'a': data has a value that does not fit in BF16")


def test_the_documents_of_the_model_name_the_type(halves: Live) -> None:
    _, _, body = request(halves.port, "GET", "/v2/models/model")
    assert [tensor["datatype"] for tensor in json.loads(body)["inputs"]] == ["BF16", "FP32"]
    _, _, body = request(halves.port, "GET", "/v2/models/model/config")
    assert json.loads(body)["input"][0]["data_type"] == "TYPE_BF16"
    _, _, body = request(halves.port, "GET", "/openapi.json")
    assert msgspec.json.encode((2 - 2.0**-8) * 2.0**127) in body


def _texts_model(directory: Path, output: int) -> Path:
    """b BF16 and s BYTES, both [-1, 2] -> c, the same numbers in the type `output`, and t, the same text."""
    directory.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["b"], ["c"], to=output), helper.make_node("Identity", ["s"], ["t"])],
        "texts",
        [
            helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [None, 2]),
            helper.make_tensor_value_info("s", TensorProto.STRING, [None, 2]),
        ],
        [
            helper.make_tensor_value_info("c", output, [None, 2]),
            helper.make_tensor_value_info("t", TensorProto.STRING, [None, 2]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(directory / "model.onnx"))
    return directory


def test_text_beside_bf16_works_inwards_and_is_refused_outwards(tmp_path: Path) -> None:
    loaded = load_model(Config(model_dir=_texts_model(tmp_path / "in", TensorProto.FLOAT)))
    inputs = {"b": np.array([[1.0, 2.5]], np.float32), "s": np.array([["a", "b"]], object)}
    numbers, texts = loaded.engine.run(inputs, ["c", "t"])
    assert (numbers.tolist(), texts.tolist()) == ([[1.0, 2.5]], [["a", "b"]])
    with pytest.raises(FailureError, match=r"input 's' is text and output 'c' is BF16: .* cast to FP32"):
        load_model(Config(model_dir=_texts_model(tmp_path / "out", TensorProto.BFLOAT16)))


def test_tritonclient_over_http_and_grpc(halves: Live) -> None:
    script = Path(__file__).with_name("triton_bfloat16_client.py")
    addresses = [f"127.0.0.1:{port}" for port in (halves.port, halves.server.grpc_port)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *addresses],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    right = {"y": [[43.5, 53.75], [2.0, 3.0]], "total": [[43.5, 53.75], [2.0, 3.0]], "datatype": "BF16"}
    assert told == {"http": right, "http, JSON answer": right, "grpc": right}


def test_bindings_are_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = halves_model(tmp_path / "m")
    for options in (OnnxOptions(io_binding="true"), OnnxOptions(io_binding="true", cuda_graph=True)):
        with pytest.raises(FailureError, match="do not work with inputs or outputs of BF16; leave them out"):
            load_model(Config(model_dir=folder, onnx=options))
