"""What C does for numbers is, bit for bit, what Python does, or is left to it; and forms of bodies that come again."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.fast import floats, python_floats, python_times, times
from serinus_runtime.fastjson import FastReader

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
    assert times(wall, request_id, code, *moments) == python_times(wall, request_id, code, *moments)


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
