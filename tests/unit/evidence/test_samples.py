"""Samples as people write them, and answers beside answers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.evidence.parity import compare_answers, compare_expected, percentile, same
from serinus.evidence.samples import SamplesError, Tensor, flat, generate, inputs_of, parse

REQUEST = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


@pytest.mark.parametrize("text", [json.dumps(REQUEST) + "\n\n" + json.dumps(REQUEST), json.dumps([REQUEST, REQUEST])])
def test_lines_and_lists(text: str) -> None:
    assert [dict(sample.body) for sample in parse(text)] == [REQUEST, REQUEST]


def test_any_other_request() -> None:
    (sample,) = parse('{"path": "/v1/chat/completions", "body": {"messages": []}}')
    assert (sample.path, sample.body) == ("/v1/chat/completions", {"messages": []})


def test_a_line_of_the_prediction_log() -> None:
    (sample,) = parse('{"inputs": {"x": [[1, 2]]}, "expected": {"y": [[3]]}}', [Tensor("x", "FP32", (-1, 2))])
    assert sample.body == REQUEST
    assert sample.expected == {"y": [3]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no sample"),
        ("[", "the list of samples is not JSON"),
        ('{"inputs": []}\n{', "line 2 is not JSON"),
        ("[1]", "sample 1: write an object"),
        ("{}", "line 1: inputs are missing"),
        ('{"path": "x", "body": {}}', 'line 1: write {"path": "/..."'),
        ('{"inputs": [], "expected": [1]}', "line 1: write expected as"),
        ('{"inputs": {"z": [1]}}', "the model's metadata has no input 'z'"),
        ('{"inputs": {"x": ["[redacted]"]}}', "all samples are redacted"),
        ("[" + "{}," * 1000 + "{}]", "more than 1000 samples"),
    ],
)
def test_what_cannot_be_used(text: str, said: str) -> None:
    with pytest.raises(SamplesError, match=said.replace("{", r"\{").replace("[", r"\[")):
        parse(text, [Tensor("x", "FP32", (-1, 2))])


def test_generated_from_metadata() -> None:
    metadata = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "id", "datatype": "INT64", "shape": [-1, 1]},
            {"name": "text", "datatype": "BYTES", "shape": [1]},
            {"name": "flag", "datatype": "BOOL", "shape": [2]},
        ]
    }
    made = generate(inputs_of(metadata), 20)
    assert made == generate(inputs_of(metadata), 20), "the same each time: an attempt can be repeated"
    first, second = (dict(sample.body)["inputs"] for sample in made[:2])
    assert [(each["name"], each["shape"], len(each["data"])) for each in first] == [
        ("x", [1, 3], 3), ("id", [1, 1], 1), ("text", [1], 1), ("flag", [2], 2),
    ]  # fmt: skip
    assert first[0]["data"] == [0.0, 0.0, 0.0]
    assert second[0]["data"] != first[0]["data"]
    assert second[1]["data"] == [0]


@pytest.mark.parametrize("metadata", [None, {}, {"inputs": []}, {"inputs": [{"name": "x"}]}, "text", {"inputs": 3}])
def test_metadata_that_says_nothing(metadata: Any) -> None:
    with pytest.raises(SamplesError, match="write samples"):
        inputs_of(metadata)


def answer(**outputs: list[Any]) -> dict[str, Any]:
    return {"outputs": [{"name": name, "shape": [len(data)], "data": data} for name, data in outputs.items()]}


@pytest.mark.parametrize(
    ("mine", "other", "said"),
    [
        (answer(y=[1.0]), answer(y=[1.00005]), None),
        (answer(y=[1.0]), answer(y=[1.1]), "output y[0] is 1, live 1.1"),
        (answer(y=[1.0, 2.0]), answer(y=[1.0]), "output y has shape [2], the live revision's [1]"),
        (answer(y=[1.0]), answer(z=[1.0]), "the candidate has the outputs y, the live revision z"),
        (answer(y=["a"]), answer(y=["b"]), 'output y[0] is "a", live "b"'),
        (answer(y=[math.nan]), answer(y=[math.nan]), None),
        (answer(y=[math.nan]), answer(y=[0.0]), "output y[0] is nan, live 0"),
        (answer(y=[None]), answer(y=[0.0]), "output y[0] is null, live 0"),
        (answer(y=[True]), answer(y=[1]), None),
        ({"text": "a"}, {"text": "a"}, None),
        ({"text": "a"}, {"text": "b"}, "the answers differ"),
    ],
)
def test_answers_side_by_side(mine: Any, other: Any, said: str | None) -> None:
    assert compare_answers(mine, other, 1e-5, 1e-3).difference == said


def test_expected() -> None:
    assert compare_expected(answer(y=[1.0], label=["ok"]), {"y": [1.0]}, 0, 0).agrees
    assert compare_expected(answer(y=[1.0]), {"z": [1.0]}, 0, 0).difference == "output z is missing; there are y"
    assert compare_expected(answer(y=[1.0]), {"y": [1.0, 2.0]}, 0, 0).difference == (
        "output y has 1 values, expected 2"
    )
    assert compare_expected("text", {"y": [1.0]}, 0, 0).difference == "the answer has no outputs"


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**6), 10**6)


@settings(deadline=None)
@given(numbers, numbers, st.floats(0, 10), st.floats(0, 1))
def test_tolerance(mine: float, other: float, absolute: float, relative: float) -> None:
    assert same(mine, mine, 0, 0)
    if same(mine, other, 0, 0):
        assert same(mine, other, absolute, relative), "more tolerance never makes two values differ"
    if math.isfinite(mine) and math.isfinite(other) and abs(mine - other) <= absolute:
        assert same(mine, other, absolute, relative)


@settings(deadline=None)
@given(st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_flat_keeps_order_and_count(nested: Any) -> None:
    assert json.dumps(flat(nested)).replace(" ", "") == "[" + ",".join(_digits(nested)) + "]"


def _digits(nested: Any) -> list[str]:
    return [str(nested)] if isinstance(nested, int) else [text for each in nested for text in _digits(each)]


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentile_is_the_smallest_that_covers_the_share(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)
