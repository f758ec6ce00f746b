"""What is read in one pass, or not parsed again, is exactly what the full codec and the parser make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.fastjson import FastReader
from serinus_runtime.http import Exchange
from serinus_runtime.http.heads import HEAD_BYTES, Heads
from serinus_runtime.oip import InferCodec, InvalidRequestError
from unit.runtime.support import GateEngine, Live, Reader, connect, gated, infer_body, post, request

SIGNATURE = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP64", (-1,))),
    (TensorSpec("y", "FP32", (-1, 1)),),
    batched=True,
)


@pytest.fixture
def live() -> Iterator[Live]:
    with Live(gated(GateEngine())) as running:
        yield running


def body(**changes: Any) -> dict[str, Any]:
    a = {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, -3, 4e3]}
    b = {"name": "b", "shape": [2], "datatype": "FP64", "data": [0.1, 7]}
    return {"inputs": [a, b], "id": "i", **changes}


def slow(text: bytes) -> Any:
    return InferCodec("m", "1", SIGNATURE).decode(text)


def test_a_plain_request_is_read_in_one_pass() -> None:
    text = json.dumps(body()).encode()
    read = FastReader(SIGNATURE).read(text)
    assert read is not None
    name, inputs, rows, raw, kind = read
    expected = slow(text)
    assert (name, rows, list(inputs)) == (expected.id, expected.rows, ["a", "b"])
    assert (raw, kind) == (b"", b""), "there are two inputs"
    for key, array in inputs.items():
        np.testing.assert_array_equal(array, expected.inputs[key])
        assert array.dtype == expected.inputs[key].dtype


_numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-10, 10), st.booleans(), st.none())
_tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "c"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
        "datatype": st.sampled_from(["FP32", "FP64", "INT64"]),
        "data": st.one_of(st.lists(_numbers, max_size=6), st.lists(st.lists(_numbers, max_size=2), max_size=3)),
    }
)
_almost = st.builds(
    lambda numbers, shape: [*body()["inputs"][1:], {**body()["inputs"][0], "data": numbers, "shape": shape}],
    st.lists(_numbers, min_size=2, max_size=6),
    st.sampled_from([[2, 2], [1, 2], [4], [2, 2, 1]]),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(_tensors, max_size=3), _almost), st.sampled_from([{}, {"outputs": []}, {"parameters": {}}]))
def test_whatever_is_read_in_one_pass_is_read_alike_by_the_codec(inputs: list[Any], more: dict[str, Any]) -> None:
    text = json.dumps({"inputs": inputs, **more}).encode()
    read = FastReader(SIGNATURE).read(text)
    if read is None:
        return
    expected = slow(text)
    assert (read[0], read[2]) == (expected.id, expected.rows)
    assert list(read[1]) == list(expected.inputs)
    for key, array in read[1].items():
        np.testing.assert_array_equal(array, expected.inputs[key])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"inputs":[]}',
        json.dumps(body(outputs=[{"name": "y"}])).encode(),
        json.dumps(body(inputs=body()["inputs"][:1])).encode(),
        json.dumps({"inputs": [body()["inputs"][0]] * 2}).encode(),
        json.dumps(body()).replace("4000.0", "1e300").encode(),
        json.dumps(body()).encode().replace(b"-3", b"null"),
        b"\xff" + json.dumps(body()).encode(),
    ],
)
def test_everything_else_is_left_to_the_codec(text: bytes) -> None:
    assert FastReader(SIGNATURE).read(text) is None


def test_a_number_too_large_for_its_type_is_refused_with_its_reason() -> None:
    text = json.dumps(body()).replace("4000.0", "1e300").encode()
    with pytest.raises(InvalidRequestError, match="does not fit in FP32"):
        InferCodec("m", "1", SIGNATURE).read(text, {})


def test_models_with_other_types_have_no_fast_way() -> None:
    assert not FastReader(Signature((TensorSpec("t", "BYTES", (-1,)),), (), batched=True)).usable
    assert not FastReader(Signature((), (), batched=False)).usable


def _exchange(**headers: bytes) -> Exchange:
    exchange = Exchange(lambda *_: None)
    exchange.method, exchange.target = b"POST", b"/x?a"
    exchange.headers = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return exchange


def test_only_plain_heads_are_kept() -> None:
    heads = Heads(100)
    for refused in (
        _exchange(),
        _exchange(content_length=b"6"),
        _exchange(content_length=b"5, 5"),
        _exchange(content_length=b"5", transfer_encoding=b"chunked"),
        _exchange(content_length=b"5", connection=b"keep-alive"),
        _exchange(content_length=b"5", expect=b"100-continue"),
        _exchange(content_length=b"5", x_request_id=b"1"),
    ):
        heads.learn(b"head", 5, refused)
    closing = _exchange(content_length=b"5")
    closing.close = True
    heads.learn(b"head", 5, closing)
    heads.learn(b"head", 101, _exchange(content_length=b"101"))
    assert len(heads) == 0
    heads.learn(b"head", 5, _exchange(content_length=b"5"))
    for unlike in (b"head", b"head\r\n\r\n", b"head\r\n\r\nhell", b"head\r\n\r\nhello!", b"heads\r\n\r\nhello"):
        assert heads.find(unlike) is None
    found = heads.find(b"head\r\n\r\nhello")
    assert found is not None
    head, text = found
    assert (head.method, head.target, head.path, head.length) == (b"POST", b"/x?a", b"/x", 5)
    assert text == b"hello"


@pytest.mark.parametrize(
    "name", ["content-encoding", "grpc-timeout", "prefer", "request-timeout", "x-priority", "x-request-timeout",
             "x-envoy-expected-rq-timeout-ms"],
)  # fmt: skip
def test_heads_that_say_how_to_answer_are_not_plain(name: str) -> None:
    heads = Heads(100)
    for raw, exchange in (
        (b"plain", _exchange(content_length=b"5", accept=b"*/*")),
        (b"not", _exchange(content_length=b"5", **{name: b"1"})),
    ):
        heads.learn(raw, 5, exchange)
        found = heads.find(raw + b"\r\n\r\nhello")
        assert found is not None
        assert found[0].plain == (raw == b"plain")


def test_what_a_head_says_counts_also_when_it_is_known(live: Live) -> None:
    with connect(live.port) as sock, Reader(sock) as reader:
        for _ in range(3):
            sock.sendall(post(infer_body([1, 2, 3]), "Content-Encoding: gzip"))
            assert reader.answer()[0] == 415


def test_heads_are_bounded() -> None:
    heads = Heads(100)
    for number in range(20_000):
        heads.learn(b"%d" % number, 5, _exchange(content_length=b"5"))
        assert len(heads) <= 512


def test_a_head_that_comes_again_is_answered_alike_however_it_is_cut(live: Live) -> None:
    data = post(infer_body([1, 2, 3]))
    other = post(infer_body([1, 2, 4]), "X-Request-Id: mine")
    with connect(live.port) as sock, Reader(sock) as reader:
        answers = []
        for cut in [0, 0, 0, 10, 0, len(data) - 3, 0, data.index(b"\r\n\r\n") + 4, 0]:
            if cut:
                sock.sendall(data[:cut])
                # A request in between shows that the first part has arrived.
                assert request(live.port, "GET", "/v2")[0] == 200
            sock.sendall(data[cut:])
            answers.append(reader.answer())
        sock.sendall(data + other + data)
        three = [reader.answer() for _ in range(3)]
    assert {status for status, _, _ in answers + three} == {200}
    assert {text for _, _, text in answers} == {answers[0][2]}
    assert [text == answers[0][2] for _, _, text in three] == [True, False, True]
    assert three[1][1]["x-request-id"] == "mine"
    ids = [headers["x-request-id"] for _, headers, _ in answers]
    assert len(set(ids)) == len(ids)


def test_a_known_head_on_a_connection_that_is_refused_or_lies_is_parsed(live: Live) -> None:
    data = post(infer_body([1, 2, 3]))
    with connect(live.port) as sock, Reader(sock) as reader:
        for _ in range(3):
            sock.sendall(data)
            assert reader.answer()[0] == 200
        sock.sendall(data + b"garbage\r\n\r\n")
        assert [reader.answer()[0] for _ in range(2)] == [200, 400]
        assert reader.end()


def test_long_heads_are_parsed(live: Live) -> None:
    data = post(infer_body([1, 2, 3]), "X-Long: " + "a" * HEAD_BYTES)
    with connect(live.port) as sock, Reader(sock) as reader:
        for _ in range(3):
            sock.sendall(data)
            assert reader.answer()[0] == 200
    assert len(live.server._site.heads) == 0


def test_answers_are_json_whatever_their_shape() -> None:
    codec = InferCodec("m", "1", SIGNATURE)
    for array in (np.zeros((0, 1), np.float32), np.array([[np.nan], [np.inf]], np.float32), np.array(1.5)):
        answer = json.loads(codec.encode("i", ["y"], [array]))
        assert answer["outputs"][0]["shape"] == list(array.shape)
    assert json.loads(codec.encode(None, [], []))["outputs"] == []
