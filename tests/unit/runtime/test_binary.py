"""The binary tensor extension: all datatypes there and back, malformed requests, fuzzing, a real client."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.about import About, Rule
from serinus_runtime.binary import from_raw, to_raw
from serinus_runtime.config import Config
from serinus_runtime.datatypes import NUMPY, WIRE_BYTES
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.oip import InferCodec, InferRequest, InvalidRequestError
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.support import Live, request

HEAD = b"inference-header-content-length"
NUMBERS = [name for name in NUMPY if name != "BYTES"]
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("s", "BYTES", (-1, -1))),
    (TensorSpec("y", "FP32", (-1, 1)), TensorSpec("t", "BYTES", (-1, 1))),
    batched=True,
)
RULE = Rule("y", None, (("block", 0.82), ("step_up", 0.6)), "allow")
CODEC = InferCodec("m", "1", SIGNATURE, About({}, RULE))


def binary_body(document: Any, *raw: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A body with raw tensors behind its JSON, and the header that says so."""
    head = json.dumps(document).encode()
    return b"".join((head, *raw)), {HEAD: b"%d" % len(head)}


def _x(size: Any = 12, **more: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}, **more}


def _s(size: Any, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": "s", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": size}, **more}


X = struct.pack("<3f", 1, 2, 3)
HI = struct.pack("<I2s", 2, b"hi")
S = _s(6, [1, 1])


def test_raw_and_json_tensors_mix_in_any_order() -> None:
    text = {"name": "s", "shape": [1, 1], "datatype": "BYTES", "data": ["hi"]}
    for document, raw in (
        ({"inputs": [_x(), S]}, (X, HI)),
        ({"inputs": [S, _x()]}, (HI, X)),
        ({"inputs": [text, _x()], "id": "7"}, (X,)),
    ):
        body, headers = binary_body(document, *raw)
        got = CODEC.read(body, headers)
        assert got.inputs["x"].tolist() == [[1, 2, 3]]
        assert got.inputs["s"].tolist() == [["hi"]]
        assert (got.rows, list(got.inputs)) == (1, ["x", "s"])


def test_numbers_are_not_copied_where_they_lie_right() -> None:
    raw = bytes(range(240)) * 10
    for name in NUMBERS:
        if name in ("BOOL", "BF16"):
            continue
        array = from_raw("x", name, [-1 + 1 + len(raw) // NUMPY[name].itemsize], memoryview(raw))
        assert np.shares_memory(array, np.frombuffer(raw, np.uint8))
        shifted = from_raw("x", name, [8], memoryview(b"?" + raw)[1 : 1 + 8 * NUMPY[name].itemsize])
        assert shifted.flags.aligned
        assert shifted.tobytes() == raw[: 8 * NUMPY[name].itemsize]


@given(st.sampled_from(NUMBERS), st.binary(max_size=400))
def test_numbers_come_back_as_they_went(name: str, data: bytes) -> None:
    size = WIRE_BYTES[name]
    data = data[: len(data) // size * size]
    array = from_raw("x", name, [len(data) // size], memoryview(data))
    assert array.dtype == NUMPY[name]
    if name == "BF16":
        data = _quiet(data)
    assert bytes(to_raw(array, name)) == (bytes(bool(byte) for byte in data) if name == "BOOL" else data)


def _quiet(data: bytes) -> bytes:
    """BF16 words whose NaNs are quiet: signalling ones become so on the way, as in every processor."""
    words = struct.unpack(f"<{len(data) // 2}H", data)
    return struct.pack(f"<{len(words)}H", *(word | 0x40 if word & 0x7FFF > 0x7F80 else word for word in words))


@given(st.lists(st.text(max_size=20), max_size=20))
def test_strings_come_back_as_they_went(texts: list[str]) -> None:
    if any("\ud800" <= char <= "\udfff" for text in texts for char in text):
        return
    raw = to_raw(np.array(texts, dtype=object))
    assert from_raw("s", "BYTES", [len(texts)], memoryview(raw)).tolist() == texts


def test_rows_are_sent_in_order_whatever_lies_in_memory() -> None:
    table = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert bytes(to_raw(table)) == struct.pack("<6i", 0, 3, 1, 4, 2, 5)
    assert bytes(to_raw(np.zeros((0, 3), np.float32))) == b""


BAD: list[tuple[tuple[bytes, dict[bytes, bytes]], str]] = [
    (binary_body({"inputs": [_x()]}, X), "input 's' is missing"),
    (binary_body({"inputs": [_x(), S]}, X), "input 's': binary_data_size is 6, but only 0 bytes follow"),
    (binary_body({"inputs": [_x(), S]}, X, HI, b"more"), "4 bytes of binary data belong to no input"),
    (binary_body({"inputs": [_x(8), S]}, X[:8], HI), "8 bytes of binary data, but the shape [1, 3] of FP32 needs 12"),
    (binary_body({"inputs": [_x(-1), S]}, X, HI), "binary_data_size must be a whole number, not -1"),
    (binary_body({"inputs": [_x(True), S]}, X, HI), "binary_data_size must be a whole number, not True"),
    (binary_body({"inputs": [_x("12"), S]}, X, HI), "binary_data_size must be a whole number, not '12'"),
    (binary_body({"inputs": [_x(12.0), S]}, X, HI), "binary_data_size must be a whole number, not 12.0"),
    (binary_body({"inputs": [_x(None), S]}, X, HI), "binary_data_size must be a whole number, not None"),
    (binary_body({"inputs": [_x(10**40), S]}, X, HI), "but only 18 bytes follow"),
    (binary_body({"inputs": [_x(data=[1, 2, 3]), S]}, X, HI), "both data and binary_data_size are given"),
    (binary_body({"inputs": [_x(datatype="BF16"), S]}, X, HI), "input 'x': datatype 'BF16', but the model takes FP32"),
    (binary_body({"inputs": [_x(shape=[10**30, 3]), S]}, X, HI), "12 bytes of binary data, but the shape"),
    (binary_body({"inputs": [_x(parameters={"shared_memory_region": "r"}), S]}, X, HI), "shared memory is not"),
    (binary_body({"inputs": [_x(), _s(0, [1, 0])]}, X, b"x"), "1 bytes of binary data belong to no input"),
    (binary_body({"inputs": [_x(), _s(0, [1, 1])]}, X), "cannot hold 1 BYTES elements"),
    (binary_body({"inputs": [_x(), _s(6, [1, 10**9])]}, X, HI), "cannot hold 1000000000 BYTES elements"),
    (binary_body({"inputs": [_x(), _s(6, [1, 10**30])]}, X, HI), "cannot hold 1000"),
    (binary_body({"inputs": [_x(), _s(4, [1, 1])]}, X, b"\xff\xff\xff\xff"), "says that it ends at byte 4294967299"),
    (binary_body({"inputs": [_x(), _s(6, [1, 1])]}, X, b"\3\0\0\0hi"), "ends at byte 7, but there are 6 bytes"),
    (binary_body({"inputs": [_x(), _s(6, [1, 1])]}, X, b"\1\0\0\0hi"), "1 bytes are left over after 1 BYTES"),
    (binary_body({"inputs": [_x(), _s(9, [1, 2])]}, X, b"\2\0\0\0hi\1\0\0"), "BYTES element 1 says that it ends"),
    (binary_body({"inputs": [_x(), _s(6, [1, 1])]}, X, b"\2\0\0\0\xff\xfe"), "BYTES element 0 is not UTF-8"),
    (binary_body({"inputs": [_x(), S], "parameters": {"binary_data_output": 1}}, X, HI), "must be true or false"),
    (
        binary_body({"inputs": [_x(), S], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, X, HI),
        "output 'y': the parameter 'binary_data' must be true or false",
    ),
    (
        binary_body({"inputs": [_x(), S], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, X, HI),
        "output 'y': the parameter 'classification' is not supported",
    ),
    ((json.dumps({"inputs": [_x(), S]}).encode(), {}), "the header Inference-Header-Content-Length is missing"),
    ((b"{}", {HEAD: b"3"}), "must be the length of the JSON"),
    ((b"{}", {HEAD: b"-1"}), "must be the length of the JSON"),
    ((b"{}", {HEAD: b""}), "must be the length of the JSON"),
    ((b"{}", {HEAD: b"2, 2"}), "must be the length of the JSON"),
    ((b"{}", {HEAD: b"9" * 5000}), "must be the length of the JSON"),
    ((b"{}", {HEAD: b"\xb2"}), "must be the length of the JSON"),
    ((b"{}", {HEAD: b"1"}), "the body is not JSON"),
    ((b"{}", {HEAD: b"0"}), "only a model with one input of numbers"),
]


@pytest.mark.parametrize(("sent", "message"), BAD)
def test_a_bad_binary_request_is_told_what_is_wrong(sent: tuple[bytes, dict[bytes, bytes]], message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        CODEC.read(*sent)
    assert message in str(caught.value)


def test_empty_tensors_cannot_ask_for_outputs_of_any_size() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, -1, -1)),), (), batched=True)
    codec = InferCodec("m", "1", signature)
    document = {"inputs": [{"name": "x", "shape": [1, 0, 1 << 50], "datatype": "FP32", "data": []}]}
    with pytest.raises(InvalidRequestError, match="too large for a tensor without elements"):
        codec.read(json.dumps(document).encode(), {})


def test_many_empty_strings_are_bounded() -> None:
    count = (1 << 20) + 1
    body, headers = binary_body({"inputs": [_x(), _s(4 * count, [1, count])]}, X, bytes(4 * count))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match="at most 1048576 are taken at once"):
            CODEC.read(body, headers)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


_DOCUMENTS = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["x", "s", "z"]),
                    "shape": st.lists(st.integers(-1, 5), max_size=3),
                    "datatype": st.sampled_from(["FP32", "BYTES", "BF16"]),
                },
                optional={
                    "parameters": st.dictionaries(
                        st.sampled_from(["binary_data_size", "a"]), st.one_of(st.integers(-1, 40), st.none())
                    ),
                    "data": st.lists(st.one_of(st.integers(), st.text(), st.floats(allow_nan=False)), max_size=4),
                },
            ),
            max_size=3,
        )
    },
    optional={
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["y", "decision", "q"])}), max_size=2),
        "parameters": st.dictionaries(st.sampled_from(["binary_data_output"]), st.booleans() | st.integers()),
    },
)


@given(_DOCUMENTS, st.binary(max_size=60), st.one_of(st.none(), st.binary(max_size=6)))
def test_any_binary_body_is_read_or_refused(document: Any, raw: bytes, length: bytes | None) -> None:
    body, headers = binary_body(document, raw)
    if length is not None:
        headers = {HEAD: length}
    try:
        got = CODEC.read(body, headers)
    except InvalidRequestError:
        return
    assert got.inputs["x"].shape == (got.rows, 3)


@given(st.binary(max_size=200), st.integers(0, 220))
def test_any_bytes_are_read_or_refused(body: bytes, length: int) -> None:
    with pytest.raises(InvalidRequestError):
        CODEC.read(body, {HEAD: b"%d" % length})


@given(st.integers(0, 6), st.binary(max_size=60))
def test_any_bytes_are_strings_or_refused(count: int, raw: bytes) -> None:
    try:
        array = from_raw("s", "BYTES", [count], memoryview(raw))
    except InvalidRequestError:
        return
    assert bytes(to_raw(array)) == raw


def test_the_decision_is_an_output_on_request() -> None:
    body, headers = binary_body({"inputs": [_x(), S], "outputs": [{"name": "decision"}]}, X, HI)
    asked = CODEC.read(body, headers)
    assert (asked.outputs, asked.wanted) == (("y",), ("decision",))
    scores = np.array([[0.82], [0.81], [0.6], [0.59], [np.nan]], np.float32)
    body, _, _ = CODEC.reply(asked, [scores])
    assert json.loads(body)["outputs"] == [
        {
            "name": "decision",
            "datatype": "BYTES",
            "shape": [5],
            "data": ["block", "step_up", "step_up", "allow", "unknown"],
        }
    ]
    plain = InferRequest(None, {}, 1, ("y",), ("y", "decision"), frozenset(("y", "decision")))
    body, content_type, lines = CODEC.reply(plain, [scores[:1]])
    length = int(lines.split(b": ")[1])
    assert content_type == b"application/octet-stream"
    assert body[length:] == struct.pack("<fI5s", 0.82, 5, b"block")


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server for `support.echo_model`."""
    directory = support.echo_model(tmp_path_factory.mktemp("models") / "echo")
    with Live(load_model(Config(model_dir=directory)), model_name="echo") as server:
        yield server


def test_a_whole_body_of_raw_bytes(live: Live) -> None:
    path, headers = "/v2/models/model/infer", {"Inference-Header-Content-Length": "0"}
    status, got, body = request(live.port, "POST", path, struct.pack("<6f", 1, 2, 3, 4, 5, 6), headers)
    assert status == 200
    assert struct.unpack("<2f", body[int(got["inference-header-content-length"]) :]) == (6, 15)
    for raw in (b"", b"x", bytes(16)):
        assert request(live.port, "POST", path, raw, headers)[0] == 400


CLIENT = Path(__file__).with_name("triton_client.py")


def test_tritonclient_over_http(echo: Live) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(CLIENT), f"127.0.0.1:{echo.port}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert "binary_tensor_data" in told["extensions"]
    assert "datatype 'BF16', but the model takes FP32" in told["bf16"]
