"""`/v1/models/M:predict`, `/predict`, decisions, and what model.json may say."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime import about
from serinus_runtime.about import About, Rule
from serinus_runtime.config import Config
from serinus_runtime.engine import Signature, TensorSpec
from serinus_runtime.friendly import Predict, PredictV1
from serinus_runtime.oip import InferRequest, InvalidRequestError
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.support import Live, request

SCORER = Signature(
    (TensorSpec("features", "FP32", (-1, 3)), TensorSpec("category", "BYTES", (-1, 1))),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))),
    batched=True,
)
NAMED = About({"features": ("amount", "age", "hour")})
SUM = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
ROW = {"amount": 0.5, "age": 0.25, "hour": 0.125, "category": "travel"}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server for `support.scorer_model`."""
    directory = support.scorer_model(tmp_path_factory.mktemp("models") / "scorer")
    with Live(load_model(Config(model_dir=directory)), model_name="fraud", model_version="3") as server:
        yield server


def _ask(server: Live, path: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, headers, answer = request(server.port, "POST", path, data)
    assert headers["content-type"] == "application/json"
    assert "x-model-digest" in headers
    return status, json.loads(answer)


def test_one_object_of_named_columns(scorer: Live) -> None:
    assert _ask(scorer, "/predict", ROW) == (
        200,
        {"label": 1, "probabilities": [0.125, 0.875], "score": 0.875, "decision": "block"},
    )


def test_a_list_of_objects(scorer: Live) -> None:
    rows = [ROW, {**ROW, "amount": 0.25}, {**ROW, "amount": 0}]
    status, answer = _ask(scorer, "/predict", rows)
    assert status == 200
    assert [row["decision"] for row in answer] == ["block", "step_up", "allow"]
    assert [row["score"] for row in answer] == [0.875, 0.625, 0.375]


def test_a_vector_may_also_come_whole(scorer: Live) -> None:
    whole = {"features": [0.5, 0.25, 0.125], "category": ["features"]}
    assert _ask(scorer, "/predict", whole) == _ask(scorer, "/predict", ROW)
    assert _ask(scorer, "/predict", {**ROW, "category": "features"})[0] == 200


def test_instances_in_predictions_out(scorer: Live) -> None:
    expected = {"predictions": [{"label": 1, "probabilities": [0.125, 0.875]}]}
    for path in ("/v1/models/fraud:predict", "/v1/models/fraud/versions/3:predict", "/v1/models/fraud%3Apredict"):
        assert _ask(scorer, path, {"instances": [ROW], "signature_name": "serving_default"}) == (200, expected)
    b64 = {"b64": base64.b64encode("groß".encode()).decode()}
    whole = {"features": [0.5, 0.25, 0.125], "category": b64}
    assert _ask(scorer, "/v1/models/fraud:predict", {"instances": [whole]}) == (200, expected)
    columns = {"inputs": {"features": [[0.5, 0.25, 0.125]] * 2, "category": ["a", ["b"]]}}
    assert _ask(scorer, "/v1/models/fraud:predict", columns) == (
        200,
        {"outputs": {"label": [1, 1], "probabilities": [[0.125, 0.875]] * 2}},
    )


def test_a_model_with_one_input_takes_bare_values(live: Live) -> None:
    path = "/v1/models/model:predict"
    assert _ask(live, path, {"instances": [[1, 2, 3], [4, 5, 6]]}) == (200, {"predictions": [[6.0], [15.0]]})
    assert _ask(live, path, {"instances": [{"x": [1, 2, 3]}]}) == (200, {"predictions": [[6.0]]})
    assert _ask(live, path, {"inputs": [[1, 2, 3]]}) == (200, {"outputs": [[6.0]]})
    assert _ask(live, path, {"inputs": {"x": [[1, 2, 3]]}}) == (200, {"outputs": [[6.0]]})
    assert _ask(live, "/predict", {"x": [1, 2, 3]}) == (200, {"y": 6.0})


def test_states_and_refusals(scorer: Live) -> None:
    def get(path: str) -> tuple[int, Any]:
        status, _, body = request(scorer.port, "GET", path)
        return status, json.loads(body)

    assert get("/v1/models") == (200, {"models": ["fraud"]})
    status, told = get("/v1/models/fraud")
    assert (status, told["name"], told["ready"], told["model_version_status"][0]["state"]) == (
        200,
        "fraud",
        True,
        "AVAILABLE",
    )
    assert get("/predict")[0] == get("/v1/models/fraud:predict")[0] == 405
    assert _ask(scorer, "/v1/models/other:predict", {"instances": [ROW]})[0] == 404
    for verb in ("load", "unload"):
        for name in ("fraud", "other"):
            status, told = _ask(scorer, f"/v2/repository/models/{name}/{verb}", {})
            assert status == 403
            assert "start another server" in told["error"]
    entry = {"name": "fraud", "version": "3", "state": "READY", "reason": ""}
    for body in (b"", b"{}", b'{"ready": true}', b'{"ready": false}'):
        assert _ask(scorer, "/v2/repository/index", body) == (200, [entry])
    for body in (b"[", b"[]", b'{"ready": 1}', b"[" * 5000, b"\xff"):
        assert _ask(scorer, "/v2/repository/index", body)[0] == 400


def test_the_decision_in_the_inference_protocol(scorer: Live) -> None:
    inputs = [
        {"name": "features", "shape": [2, 3], "datatype": "FP32", "data": [0.5, 0.25, 0.125, 0, 0, 0]},
        {"name": "category", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]},
    ]
    status, answer = _ask(
        scorer, "/v2/models/fraud/infer", {"inputs": inputs, "outputs": [{"name": "decision"}, {"name": "label"}]}
    )
    assert status == 200
    assert [(output["name"], output["data"]) for output in answer["outputs"]] == [
        ("decision", ["block", "allow"]),
        ("label", [1, 0]),
    ]


BAD_ROWS: list[tuple[Any, str]] = [
    (b"", "one JSON object of named columns"),
    (b"7", "one JSON object of named columns"),
    (b"{", "$: not JSON"),
    (b"\xff", "one JSON object of named columns"),
    (b'{"amount": "\xff"}', "$"),
    (b"[" * 50_000, "$"),
    (b'{"a":' * 15_000, "$"),
    ([], "$: there are no rows"),
    ({}, "missing required field `amount`"),
    ([ROW, {}], "$[1]: object missing required field `amount`"),
    ([ROW, 1], "$[1]: expected `object`, got `int`"),
    ({**ROW, "amonut": 1}, "unknown field `amonut`"),
    ({**ROW, "amount": "12"}, "$.amount: expected `float`, got `str`"),
    ({**ROW, "amount": None}, "$.amount: expected `float`, got `null`"),
    ({**ROW, "amount": True}, "$.amount: expected `float`, got `bool`"),
    ({**ROW, "amount": [1]}, "$.amount: expected `float`, got `array`"),
    ({**ROW, "amount": 1e300}, "column 'features': a value does not fit in FP32"),
    ({**ROW, "category": 7}, "$.category"),
    ({**ROW, "category": ["a", "b"]}, "column 'category': the values have the shape"),
    ({**ROW, "category": [["a"]]}, "$.category"),
    ({**ROW, "category": {"b64": "?"}}, "b64 must hold UTF-8 text"),
    ({**ROW, "category": {"b64": "/w=="}}, "b64 must hold UTF-8 text"),
    ({**ROW, "category": {"b64": "", "x": 1}}, "unknown field `x`"),
    ({"features": [1, 2], "category": "a"}, "column 'features': the values have the shape [1, 2], but [1, 3]"),
    ({"features": [1, 2, [3]], "category": "a"}, "$.features[2]: expected `float`, got `array`"),
]


@pytest.mark.parametrize(("body", "message"), BAD_ROWS)
def test_a_bad_row_is_told_what_is_wrong_and_where(scorer: Live, body: Any, message: str) -> None:
    status, answer = _ask(scorer, "/predict", body)
    assert status == 400
    assert message in answer["error"]


BAD_V1: list[tuple[Any, str]] = [
    (b"", "the body is not JSON"),
    ([], "expected `object`, got `array`"),
    ({}, "either instances"),
    ({"instances": [ROW], "inputs": {}}, "not both"),
    ({"instances": []}, "$.instances: there are no rows"),
    ({"instances": 1}, "$.instances: expected `array`, got `int`"),
    ({"instances": {}}, "$.instances: expected `array`, got `object`"),
    ({"instances": [{**ROW, "amount": "x"}]}, "$.instances[0].amount: expected `float`, got `str`"),
    ({"instances": [[1, 2, 3]]}, "$.instances[0]: expected `object`, got `array`"),
    ({"instances": [ROW], "signature_name": "other"}, "there is only 'serving_default'"),
    ({"instances": [ROW], "signature_name": 1}, "$.signature_name"),
    ({"inputs": [[1, 2, 3]]}, "$.inputs: expected `object`, got `array`"),
    ({"inputs": {"features": [[1, 2, 3]]}}, "missing required field `category`"),
    ({"inputs": {"features": [], "category": []}}, "column 'features': the values have the shape [0]"),
    ({"inputs": {"features": [[1, 2, 3]], "category": ["a", "b"]}}, "input 'category' has 2 rows, but others have 1"),
    ({"inputs": {"features": [[1, 2, 3], [4]], "category": ["a", "b"]}}, "lists of different lengths"),
]


@pytest.mark.parametrize(("body", "message"), BAD_V1)
def test_a_bad_v1_request_is_told_what_is_wrong(scorer: Live, body: Any, message: str) -> None:
    status, answer = _ask(scorer, "/v1/models/fraud:predict", body)
    assert status == 400
    assert message in answer["error"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*ROW, "features", "x", "b64", "instances", "inputs"]), inner, max_size=5)
    ),
    max_leaves=12,
)
_ROWS = st.fixed_dictionaries(
    {
        "amount": st.integers() | st.floats(),
        "age": st.floats(width=32),
        "hour": st.floats(width=32) | _JSON,
        "category": st.text(max_size=3) | st.fixed_dictionaries({"b64": st.text(max_size=6)}) | _JSON,
    }
)
FRONTS: list[Any] = [Predict(SCORER, NAMED), PredictV1(SCORER, NAMED), PredictV1(SUM, About())]


@given(
    st.sampled_from(FRONTS),
    _JSON | _ROWS | st.lists(_ROWS, max_size=3) | st.fixed_dictionaries({"instances": st.lists(_ROWS, max_size=3)}),
)
def test_any_json_is_read_or_refused(front: Any, document: Any) -> None:
    try:
        got = front.read(json.dumps(document).encode(), {})
    except InvalidRequestError:
        return
    assert all(len(array) == got.rows for array in got.inputs.values())


@given(st.sampled_from(FRONTS), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(front: Any, body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        front.read(body, {})


def test_models_without_rows_refuse_rows_and_take_columns() -> None:
    pair = Signature((TensorSpec("a", "FP32", (2,)), TensorSpec("b", "INT64", ())), (), batched=False)
    with pytest.raises(InvalidRequestError, match="does not work in rows"):
        Predict(pair, About()).read(b'{"a": 1, "b": 2}', {})
    front = PredictV1(pair, About())
    with pytest.raises(InvalidRequestError, match="does not work in rows"):
        front.read(b'{"instances": [1]}', {})
    got = front.read(b'{"inputs": {"a": [1, 2], "b": 3}}', {})
    assert (got.inputs["a"].shape, got.inputs["b"].shape, got.rows) == ((2,), (), 1)
    fixed = Signature((TensorSpec("x", "FP32", (2, 3)),), (TensorSpec("y", "FP32", (2, 1)),), batched=False)
    got = Predict(fixed, About()).read(b'[{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]', {})
    assert (got.inputs["x"].shape, got.rows) == ((2, 3), 1)
    body, _, _ = Predict(fixed, About()).reply(got, [np.array([[6], [15]], np.float32)])
    assert json.loads(body) == [{"y": 6}, {"y": 15}]
    with pytest.raises(InvalidRequestError, match="1 rows, but the model takes exactly 2"):
        Predict(fixed, About()).read(b'{"x": [1, 2, 3]}', {})


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "é", ""])
def test_odd_names_never_keep_a_model_from_being_served(name: str) -> None:
    signature = Signature((TensorSpec(name, "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),), batched=True)
    for front in (Predict(signature, About()), PredictV1(signature, About())):
        try:
            front.read(json.dumps({name: 1.0}).encode(), {})
        except InvalidRequestError:
            continue


def test_numbers_that_json_cannot_say_are_null_and_never_allowed() -> None:
    rule = Rule("probabilities", None, (("block", 0.82),), "allow")
    front = Predict(SCORER, About({}, rule))
    outputs: dict[str, Any] = {
        "label": np.array([0, 1]),
        "probabilities": np.array([[0, np.nan], [0, np.inf]], np.float32),
    }
    body, _, _ = front.reply(InferRequest(None, {}, 2, tuple(outputs)), list(outputs.values()))
    assert [(row["score"], row["decision"]) for row in json.loads(body)] == [(None, "unknown"), (None, "block")]


def _read(directory: Path, told: Any, signature: Signature = SCORER) -> About:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    (directory / "model.json").write_bytes(text)
    return about.read(directory, signature)


def test_what_model_json_says(tmp_path: Path) -> None:
    names = ["amount", "age", "hour"]
    assert about.read(tmp_path, SCORER) == About()
    for told in (names, {"features": names}):
        assert _read(tmp_path, {"features": told}).columns == {"features": tuple(names)}
    assert _read(tmp_path, {"features": ["features", "category"]}).columns == {}
    rule = _read(tmp_path, {"thresholds": {"step_up": 0.6, "block": 0.82}}).rule
    assert rule == Rule("probabilities", None, (("block", 0.82), ("step_up", 0.6)), "allow")
    rule = _read(
        tmp_path,
        {"thresholds": {"hot": 1}, "decision": {"output": "probabilities", "column": 0, "otherwise": "cold"}},
    ).rule
    assert rule == Rule("probabilities", 0, (("hot", 1.0),), "cold")


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"[]",
        b"{" * 50_000,
        b"\xff",
        b" " * (1 << 20) + b"{}",
        {"features": 7},
        {"features": ["a", "b"]},
        {"features": ["a", "a", "b"]},
        {"features": ["a", "b", "category"]},
        {"features": {"nothing": ["a", "b", "c"]}},
        {"thresholds": {}},
        {"thresholds": [0.5]},
        {"thresholds": {"block": "high"}},
        {"thresholds": {"block": 0.8}, "decision": {"output": "label"}},
        {"thresholds": {"block": 0.8}, "decision": {"column": 2}},
        {"thresholds": {"block": 0.8}, "decision": {"colum": 1}},
        {"thresholds": {"block": 0.8}, "decision": "block"},
    ],
)
def test_what_cannot_be_used_in_model_json_is_left_out_and_told(
    tmp_path: Path, told: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _read(tmp_path, told) == About()
    assert "model.json cannot be used" in capsys.readouterr().err
