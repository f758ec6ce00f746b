"""What C does for numbers is, bit for bit, what Python does, or is left to it; and forms of bodies that come again."""

from __future__ import annotations

import json
import math
import struct
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.fast import (
    add_line,
    answer,
    floats,
    known_body,
    known_head,
    line,
    numbered,
    python_add_line,
    python_answer,
    python_floats,
    python_known_body,
    python_known_head,
    python_line,
    python_numbered,
)
from serinus_runtime.fastjson import FastReader
from serinus_runtime.inputhash import input_hash, kind

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)

_texts = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.builds("{}e{}".format, st.integers(-(10**20), 10**20), st.integers(-40, 40)),
    st.builds("{}.{:0>18}".format, st.integers(-9, 9), st.integers(0, 10**18 - 1)),
    st.integers(-(2**70), 2**70).map(str),
    st.text(alphabet="0123456789.eE+-,[] ", max_size=12),
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(_texts, min_size=1, max_size=4), st.integers(1, 5), st.booleans(), st.text(" \n\r\t", max_size=2))
@example(["-0"], 1, True, "")
@example(["9007199254740993"], 1, True, "")
@example(["0.30000000000000004"], 1, True, "")
@example(["3.4028235677973366e38"], 1, False, "")
@example(["1e400"], 1, True, "")
@example(["1.0000000596046448"], 1, False, "")
def test_lists_are_read_alike_or_left(values: list[str], count: int, wide: bool, space: str) -> None:
    text = ("ab[" + ",".join(space + value + space for value in values) + "]}").encode()
    found = floats(text, 2, count, wide)
    if found is not None:
        assert found == python_floats(text, 2, count, wide)


@pytest.mark.parametrize(
    "text",
    ["[]", "[1,]", "[,1]", "[1 2]", "[01]", "[1.]", "[.5]", "[1e]", "[+1]", "[null]", "[1,2", "", "[--1]", "[1]1"],
)
def test_what_is_not_a_list_of_so_many_numbers_is_left(text: str) -> None:
    for call in (floats, python_floats):
        found = call(text.encode(), 0, 1, True)
        assert found == ((struct.pack("=d", 1.0), 3) if text == "[1]1" else None)


def test_common_numbers_are_not_left() -> None:
    values = [0, -1.5, 1e-3, 123456.789, 0.1, -0.0, 1e22, 1700000000]
    text = json.dumps(values).encode()
    assert floats(text, 0, len(values), True) == (struct.pack("=8d", *values), len(text))
    assert floats(text, 0, len(values), False) == (struct.pack("=8f", *values), len(text))


def test_bounds_are_kept() -> None:
    assert floats(b"[1]", 5, 1, True) is None
    assert floats(b"[1]", 0, 1 << 40, True) is None
    assert floats(b"[1]", 0, 0, True) is None


@settings(max_examples=500, deadline=None)
@given(
    st.floats(0, 2e9),
    st.binary(max_size=128),
    st.integers(0, 999),
    st.tuples(*[st.one_of(st.just(0.0), st.floats(0, 1e7))] * 5),
)
@example(1e9, b"id", 200, (10.0, 10.001, 10.003, 10.006, 10.01))
@example(1e9, b"id", 429, (10.0, 0.0, 0.0, 0.0, 10.0))
@example(1e9, b"id", 504, (10.0, 10.5, 0.0, 0.0, 11.0))
def test_times_are_written_alike(wall: float, request_id: bytes, code: int, moments: tuple[float, ...]) -> None:
    given_to_both = (wall, request_id, code, *moments, 1, "", None, b',"m":1', b"}\n")
    assert line(*given_to_both) == python_line(*given_to_both)


_TYPES = ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d")
_arrays = st.builds(
    lambda text, kind, shape: (
        np.frombuffer(text.ljust(8 * 60, b"\1"), np.uint8)[: np.dtype(kind).itemsize * math.prod(shape)]
        .view(kind)
        .reshape(shape)
    ),
    st.binary(max_size=480),
    st.sampled_from(_TYPES),
    st.lists(st.integers(0, 4), max_size=3).filter(lambda shape: math.prod(shape) <= 60),
)


@settings(max_examples=500, deadline=None)
@given(_arrays, st.text(max_size=20), st.integers(1, 10**6))
@example(np.zeros((1, 30), np.float32), "x", 1)
@example(np.zeros(4096, np.float32), "x", 1)
@example(np.zeros((1, 28), np.float32), "", 1)
@example(np.arange(32, dtype=">f4"), "x", 1)
@example(np.zeros((4, 4))[:, ::2], "x", 4)
@example(np.array([["a"]], dtype=object), "x", 1)
def test_what_was_asked_is_hashed_alike_or_left(array: np.ndarray[Any, Any], name: str, rows: int) -> None:
    given_to_both = (1e9, b"id", 200, 1.0, 2.0, 3.0, 4.0, 5.0, rows, name, array, b"", b"}\n")
    written = line(*given_to_both)
    if written is not None:
        assert written == python_line(*given_to_both)
        assert json.loads(written)["input_hash"] == input_hash({name: array})


def test_common_arrays_are_hashed_here_and_strings_are_left() -> None:
    written = line(1e9, b"id", 200, 1.0, 2.0, 3.0, 4.0, 5.0, 2, "x", np.ones((2, 3), np.float32), b',"m":1', b"}\n")
    assert written is not None
    assert json.loads(written) == {
        "time": 1e9 + 5,
        "request_id": "id",
        "code": 200,
        "ms": {"total": 4000.0, "decode": 1000.0, "queue": 1000.0, "infer": 1000.0, "encode": 1000.0},
        "rows": 2,
        "input_hash": blake2b(b"x\0<f4\0(2, 3)\0" + np.ones((2, 3), np.float32).tobytes(), digest_size=16).hexdigest(),
        "m": 1,
    }
    # As raw tensors come: the buffer's format says `<f` or `=f` then.
    raw = b"x" + np.ones((2, 3), np.float32).tobytes()
    for array in (
        np.frombuffer(memoryview(raw)[1:], np.float32).reshape(2, 3),
        np.frombuffer(raw[1:], np.dtype(np.float32).newbyteorder("<")).reshape(2, 3),
    ):
        assert line(1e9, b"id", 200, 1.0, 2.0, 3.0, 4.0, 5.0, 2, "x", array, b',"m":1', b"}\n") == written
    for call in (line, python_line):
        assert call(1e9, b"id", 200, *[1.0] * 5, 1, "x", np.array(["a"], object), b"", b"}\n") is None


_raw = st.tuples(st.binary(max_size=40), st.binary(max_size=300))
_named = st.tuples(st.text(max_size=20), st.one_of(st.none(), _arrays, st.just(np.array(["a"], object))))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=128), st.one_of(_raw, _named), st.binary(max_size=3000)), max_size=40))
@example([(b"id", (b"x", b"y" * 20_000), b"")] * 3)
def test_lines_are_added_alike_to_those_before(given_to_both: list[Any]) -> None:
    """Or left, as arrays that are not plain are: then nothing is added."""
    lines = bytearray()
    for request_id, (name, array), middle in given_to_both:
        arguments = (1e9, request_id, 200, 1.0, 2.0, 3.0, 4.0, 5.0, 1, name, array, middle, b"}\n")
        expected = bytearray(lines)
        if add_line(lines, *arguments):
            assert python_add_line(expected, *arguments)
        assert lines == expected


def test_bytes_are_hashed_as_the_array_that_they_are() -> None:
    array = np.arange(30, dtype=np.float32).reshape(1, 30)
    for call in (add_line, python_add_line):
        lines = bytearray(b"before\n")
        given_to_both = (1e9, b"id", 200, 1.0, 2.0, 3.0, 4.0, 5.0, 1)
        assert call(lines, *given_to_both, kind("x", "f", (1, 30)), array.tobytes(), b"", b"}\n")
        assert call(lines, *given_to_both, "x", array, b"", b"}\n")
        before, one, other = lines.splitlines()
        assert (before, one) == (b"before", other)
        assert json.loads(one)["input_hash"] == input_hash({"x": array})


@pytest.mark.parametrize("call", [add_line, python_add_line])
@pytest.mark.parametrize(("name", "array"), [("x", b"raw"), (b"kind", np.zeros(1))])
def test_bytes_and_arrays_are_not_mixed(call: Any, name: Any, array: Any) -> None:
    lines = bytearray()
    with pytest.raises(TypeError):
        call(lines, 1e9, b"id", 200, 1.0, 2.0, 3.0, 4.0, 5.0, 1, name, array, b"", b"}\n")
    assert not lines


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=6, max_size=6), st.booleans())
def test_answers_are_put_together_alike(parts: list[bytes], silent: bool) -> None:
    assert answer(*parts, silent) == python_answer(*parts, silent)


@given(st.binary(max_size=20), st.integers(0, 2**64 - 1))
def test_ids_are_numbered_alike(prefix: bytes, number: int) -> None:
    assert numbered(prefix, number) == python_numbered(prefix, number)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"b", b"\r\n", b"\r\n\r\n", b"x" * 1000]), max_size=6).map(b"".join))
def test_heads_are_known_alike(data: bytes) -> None:
    heads = {b"": 0, b"a": 1, b"ab": 2, b"a\r\nb": 3, b"x" * 1000: 4, b"x" * 1000 + b"a": 5, b"x" * 2000: 6}
    assert known_head(data, heads) == python_known_head(data, heads)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"{", b'"data":', b" ", b"[", b"1", b"2.5", b"-0", b",", b"]", b"}", b"x" * 500]), max_size=10
    ).map(b"".join)
)
@example(b'{"data":[1,2.5]}')
@example(b'{"data": [1,2.5]}')
@example(b'{"data":x[1,2.5]}')
@example(b'{"data":[')
@example(b'{"data":')
@example(b"x" * 500 + b'"data": [1,2.5]}')
def test_forms_are_known_alike(text: bytes) -> None:
    starts = (b'{"data":', b'{"data": ', b'"data":', b'{"data":x', b"x" * 500 + b'"data":', b"x" * 500 + b'"data": ')
    forms = {start: (2, start[:1] == b"{", b"}", start) for start in starts}
    found = known_body(text, forms)
    if found is not None:
        assert found == python_known_body(text, forms)
    if text in (b'{"data":[1,2.5]}', b'{"data": [1,2.5]}'):
        assert found == (text[: text.index(b"[")], struct.pack("=2d", 1, 2.5))


def body(data: list[float], **more: Any) -> bytes:
    tensor = {"name": "x", "shape": [len(data) // 3, 3], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def read(reader: FastReader, text: bytes) -> tuple[str | None, list[float], int] | None:
    found = reader.read(text)
    return None if found is None else (found[0], found[1]["x"].ravel().tolist(), found[2])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.one_of(st.integers(-9, 9), st.floats(width=32, allow_nan=False)), min_size=0, max_size=9),
            st.sampled_from(
                [
                    {},
                    {"id": "a"},
                    {"id": "data"},
                    {"data": [1, 2, 3]},
                    {"more": {"data": [1]}},
                    {"id": "\\"},
                    {"id": '"data"'},
                ]
            ),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_forms_that_come_again_are_read_as_if_they_were_new(
    given: list[tuple[list[float], dict[str, Any], bool]],
) -> None:
    reader = FastReader(SIGNATURE)
    for data, more, first in given:
        text = json.dumps({**more, **json.loads(body(data))} if first else {**json.loads(body(data)), **more}).encode()
        assert read(reader, text) == read(FastReader(SIGNATURE), text)


def test_numbers_elsewhere_are_not_taken_for_the_tensor() -> None:
    reader = FastReader(SIGNATURE)
    inner = body([1, 2, 3])[1:]
    sly = b'{"sly":{"data": [1, 2, 3]},' + inner
    assert read(reader, sly) == (None, [1, 2, 3], 1)
    assert read(reader, sly.replace(b"[1, 2, 3]", b"[7, 7, 7]", 1)) == (None, [1, 2, 3], 1)
    escaped = b'{"sly":{"data": [1, 2, 3]},' + inner.replace(b"data", b"d\\u0061ta")
    assert read(reader, escaped) == (None, [1, 2, 3], 1)
    assert read(reader, escaped.replace(b"[1, 2, 3]", b"[7, 7, 7]", 1)) == (None, [1, 2, 3], 1)


def test_forms_are_bounded() -> None:
    reader = FastReader(SIGNATURE)
    for number in range(6000):
        assert read(reader, b'{"id":"%d",' % number + body([1, 2, 3])[1:]) == (str(number), [1, 2, 3], 1)
        assert len(reader._forms) <= 128


def test_arrays_of_known_forms_are_as_others() -> None:
    reader = FastReader(SIGNATURE)
    arrays = [found[1]["x"] for found in (reader.read(body([1, 2, 3])), reader.read(body([4, 5, 6]))) if found]
    assert [(array.dtype, array.shape, array.flags.aligned) for array in arrays] == [(np.float32, (1, 3), True)] * 2
