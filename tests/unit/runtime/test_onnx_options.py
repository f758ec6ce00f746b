"""How ONNX Runtime is told to run a model, and what happens when it cannot."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_package
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from serinus_runtime.config import Config, from_environment
from serinus_runtime.engine import onnx
from serinus_runtime.engine.onnxoptions import CPU, OnnxOptions
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.server import load_model
from unit.runtime import support

_X = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
_CUDA = "CUDAExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"


def _options(**settings: str) -> OnnxOptions:
    return from_environment({f"SERINUS_ONNX_{name}": text for name, text in settings.items()}).onnx


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"PROVIDERS": "cpu", "PROVIDER_OPTIONS": '{"cpu": {}}'},
        {"OPTIMIZATION": "off", "INTER_THREADS": "2", "SPINNING": "true"},
        {"ARENA": "false", "MEM_PATTERN": "false"},
        {"ARENA_SHRINK": "true"},
        {"OWN_SESSIONS": "true"},
        {"IO_BINDING": "true"},
        {"SESSION_CONFIG": '{"session.set_denormal_as_zero": true}'},
    ],
    ids=str,
)
def test_the_answers_are_the_same_however_it_is_run(sum_dir: Path, settings: dict[str, str]) -> None:
    engine = onnx.load(sum_dir, 2, options=_options(**settings), instances=2)
    first = engine.run({"x": _X}, ["y"])
    second = engine.run({"x": _X * 2}, ["y"])
    third = engine.run({"x": _X[:1]}, ["y"])
    np.testing.assert_array_equal(first[0], [[6], [15]])
    np.testing.assert_array_equal(second[0], [[12], [30]])
    np.testing.assert_array_equal(third[0], [[6]])
    assert engine.instances == 2
    assert engine.details["providers"] == CPU


def test_thread_affinity_reaches_onnx_runtime(sum_dir: Path) -> None:
    core = min(os.sched_getaffinity(0)) + 1
    engine = onnx.load(sum_dir, 2, options=_options(THREAD_AFFINITY=str(core)))
    np.testing.assert_array_equal(engine.run({"x": _X}, ["y"])[0], [[6], [15]])
    with pytest.raises(FailureError, match="affinit"):
        onnx.load(sum_dir, 2, options=_options(THREAD_AFFINITY="1;2;3;4"))


def test_bound_texts_and_many_shapes(tmp_path: Path) -> None:
    engine = onnx.load(support.columns_model(tmp_path / "m"), options=_options(IO_BINDING="true"))
    for rows in range(1, 40):
        inputs: dict[str, Any] = {
            "amount": np.full((rows, 1), 0.5, np.float32),
            "count": np.full((rows, 1), rows, np.int64),
            "category": np.full((rows, 1), "c", object),
        }
        (score, seen) = engine.run(inputs, ["score", "seen"])
        assert (score.tolist(), seen.tolist()) == ([[rows + 0.5]] * rows, [["c"]] * rows)
    numbers = onnx.load(support.sum_model(tmp_path / "n"), options=_options(IO_BINDING="true"))
    for rows in [*range(1, 40), 3]:
        x = np.full((rows, 3), rows, np.float32)
        np.testing.assert_array_equal(numbers.run({"x": x}, ["y"])[0], np.full((rows, 1), 3 * rows))


def test_a_provider_that_is_not_installed(sum_dir: Path) -> None:
    with pytest.raises(FailureError, match=f"{_CUDA} is not part of this image.*which has .*{CPU}") as caught:
        onnx.load(sum_dir, options=_options(PROVIDERS="cuda,cpu"))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_a_provider_that_onnx_runtime_leaves_out_without_a_word(
    sum_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # ONNX Runtime itself is asked for CUDA here, and gives a session on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [_CUDA, CPU])
    with pytest.raises(FailureError, match=f"{_CUDA} did not start and ONNX Runtime went on with {CPU}") as caught:
        onnx.load(sum_dir, options=_options(PROVIDERS="cuda,cpu"))
    assert caught.value.reason is Reason.INVALID_CONFIG
    capsys.readouterr()
    engine = onnx.load(sum_dir, options=_options(PROVIDERS="cuda", CPU_FALLBACK="true"))
    assert "the model runs on the CPU" in capsys.readouterr().err
    (family,) = engine.collect([], [])
    assert [sample.value for sample in family.samples] == [1]


def test_openvino_keeps_to_the_threads_of_the_engine(sum_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By itself it takes every core of the machine. That it obeys was seen with the real one (tests/providers).
    asked: list[dict[str, Any]] = []
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [_OPENVINO, CPU])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, **more: (asked.append(dict(more["providers"])), make(*args))[1]
    )
    named = '{"openvino": {"num_of_threads": "5", "device_type": "CPU"}}'
    for settings in ({}, {"PROVIDER_OPTIONS": named}):
        onnx.load(sum_dir, 2, options=_options(PROVIDERS="openvino", CPU_FALLBACK="true", **settings))
    assert [each[_OPENVINO] for each in asked] == [
        {"num_of_threads": "2"},
        {"num_of_threads": "5", "device_type": "CPU"},
    ]


def test_running_on_the_cpu_may_be_asked_for(sum_dir: Path) -> None:
    engine = onnx.load(sum_dir, options=_options(PROVIDERS="tensorrt,cuda", CPU_FALLBACK="true"))
    np.testing.assert_array_equal(engine.run({"x": _X}, ["y"])[0], [[6], [15]])
    (family,) = engine.collect([], [])
    assert [sample.value for sample in family.samples] == [1]
    (family,) = onnx.load(sum_dir).collect([], [])
    assert [sample.value for sample in family.samples] == [0]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("PROVIDERS", "gpu", "'gpu' is not a provider: write cpu, cuda, tensorrt"),
        ("PROVIDERS", "cpu,cpu", "each once"),
        ("PROVIDER_OPTIONS", "{", "write such as"),
        ("PROVIDER_OPTIONS", '{"cuda": {"a": []}}', "write such as"),
        ("OPTIMIZATION", "most", "off, basic, extended, all"),
        ("IO_BINDING", "yes", "auto, true, false"),
        ("ARENA", "1", "true or false"),
        ("INTER_THREADS", "0", "from 1 to 1024"),
        ("OPTIMIZED_DIR", "cache", "not an absolute path"),
    ],
)
def test_what_cannot_be_set(name: str, value: str, text: str) -> None:
    with pytest.raises(FailureError, match=f"SERINUS_ONNX_{name}: .*{text}"):
        _options(**{name: value})


def test_provider_options_are_onnx_runtimes_own() -> None:
    options = _options(
        PROVIDERS="TensorrtExecutionProvider, cpu", PROVIDER_OPTIONS='{"tensorrt": {"trt_fp16_enable": true}}'
    )
    assert options.providers == ("TensorrtExecutionProvider", CPU)
    assert options.provider_options == {"TensorrtExecutionProvider": {"trt_fp16_enable": "1"}}


def test_an_optimised_model_is_kept_and_used_again(sum_dir: Path, tmp_path: Path) -> None:
    options = _options(OPTIMIZED_DIR=str(tmp_path / "cache"))
    np.testing.assert_array_equal(onnx.load(sum_dir, options=options).run({"x": _X}, ["y"])[0], [[6], [15]])
    (kept,) = (tmp_path / "cache").iterdir()
    made = kept.stat().st_mtime_ns
    # What lies there is what is loaded.
    model = onnx_package.load(str(kept))
    model.graph.node[0].attribute[0].i = 0
    model.graph.output[0].type.tensor_type.shape.dim.pop()
    onnx_package.save(model, str(kept))
    engine = onnx.load(sum_dir, options=options)
    np.testing.assert_array_equal(engine.run({"x": _X}, ["y"])[0], [6, 15])
    assert kept.stat().st_mtime_ns != made
    assert len(list((tmp_path / "cache").iterdir())) == 1
    blocked = tmp_path / "file"
    blocked.touch()
    engine = onnx.load(sum_dir, options=_options(OPTIMIZED_DIR=str(blocked / "cache")))
    np.testing.assert_array_equal(engine.run({"x": _X}, ["y"])[0], [[6], [15]])


def _mlp(path: Path) -> None:
    random = np.random.default_rng(7)
    consts = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, random.normal(0, 0.2, size=shape).astype(np.float32).ravel())
        for name, shape in (("w1", (30, 64)), ("w2", (64, 2)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 30])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph(nodes, "mlp", [x], [y], consts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx_package.save(model, str(path))


@pytest.mark.filterwarnings("ignore")
def test_an_int8_model_serves_as_the_float_one_does(tmp_path: Path) -> None:
    answers = {}
    x = np.random.default_rng(1).normal(size=(5, 30)).astype(np.float32)
    body = {"inputs": [{"name": "x", "shape": [5, 30], "datatype": "FP32", "data": x.ravel().tolist()}]}
    _mlp(tmp_path / "float.onnx")
    for kind in ("float", "int8"):
        directory = tmp_path / kind
        directory.mkdir()
        if kind == "float":
            (tmp_path / "float.onnx").rename(directory / "model.onnx")
        else:
            quantize_dynamic(tmp_path / "float" / "model.onnx", directory / "model.onnx", weight_type=QuantType.QInt8)
        with support.Live(load_model(Config(model_dir=directory))) as live:
            metadata = json.loads(support.request(live.port, "GET", "/v2/models/model")[2])
            assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 30]}]
            status, _, answer = support.request(live.port, "POST", "/v2/models/model/infer", json.dumps(body).encode())
            assert status == 200
            answers[kind] = np.array(json.loads(answer)["outputs"][0]["data"])
    sizes = [(tmp_path / kind / "model.onnx").stat().st_size for kind in ("int8", "float")]
    assert sizes[0] < sizes[1] / 2
    assert not np.array_equal(answers["int8"], answers["float"])
    np.testing.assert_allclose(answers["int8"], answers["float"], atol=0.05 * np.abs(answers["float"]).max())


@pytest.mark.parametrize("where", ["inside", "absolute", "parent", "link", "detour"])
def test_external_data_stays_in_the_model_directory(tmp_path: Path, where: str) -> None:
    directory = tmp_path / "m"
    (directory / "sub").mkdir(parents=True)
    np.ones(3, np.float32).tofile(tmp_path / "secret")
    np.ones(3, np.float32).tofile(directory / "w.bin")
    (directory / "link").symlink_to("../secret")
    location = {
        "inside": "w.bin",
        "absolute": str(tmp_path / "secret"),
        "parent": "../secret",
        "link": "link",
        "detour": "sub/../../secret",
    }[where]
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    if where == "inside":
        np.testing.assert_array_equal(onnx.load(directory).run({"x": _X}, ["y"])[0], _X + 1)
        return
    with pytest.raises(FailureError, match=r"[Ee]xternal data") as caught:
        onnx.load(directory)
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED
    if where == "link":
        with pytest.raises(FailureError, match="links are refused"):
            load_model(Config(model_dir=directory))


def test_two_instances_share_a_session_or_have_their_own(sum_dir: Path) -> None:
    for settings in ({}, {"OWN_SESSIONS": "true"}, {"IO_BINDING": "true"}):
        engine = onnx.load(sum_dir, options=_options(**settings), instances=3)
        wrong: list[object] = []

        def ask(number: int, engine: onnx.OnnxEngine = engine, wrong: list[object] = wrong) -> None:
            x = np.full((2, 3), number, np.float32)
            for _ in range(200):
                (y,) = engine.run({"x": x}, ["y"])
                if y.tolist() != [[3 * number]] * 2:
                    wrong.append(y)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(support.WAIT)
        assert wrong == []
