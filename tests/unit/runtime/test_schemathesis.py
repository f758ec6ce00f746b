"""The server against its own OpenAPI document: schemathesis makes requests, right ones and wrong ones, from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.support import Live

_EXAMPLES = 10
_KEY = "operator-key-1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = support.scorer_model(tmp_path_factory.mktemp("models") / "m")
    with Live(load_model(Config(model_dir=directory)), model_dir=directory) as live:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose model clients load and unload, with a key that may."""
    folder = tmp_path_factory.mktemp("controlled")
    directory = support.scorer_model(folder / "m")
    keys = folder / "keys"
    keys.write_text(f"operator {_KEY} scopes=infer,read,control\n")
    settings: dict[str, Any] = {"model_dir": directory, "api_keys_file": keys, "model_control": "explicit"}
    with Live(load_model(Config(model_dir=directory)), **settings) as live:
        document = schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")
        document.auth()(_Operator)
        yield document


class _Operator:
    """Gives every request the key; schemathesis then also asks without it, which must be refused."""

    def get(self, _case: Any, _context: Any) -> str:
        return _KEY

    def set(self, case: Any, data: str, _context: Any) -> None:
        case.headers = {**(case.headers or {}), "X-API-Key": data}


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_the_document_says_is_so(served: Any, mode: GenerationMode) -> None:
    """No 5xx, no status, content type or body that is not in the document; what fits it is taken, the rest refused."""
    asked = _ask_everything(served, mode)
    assert sum(asked.values()) >= 3 * _EXAMPLES
    assert not any("/repository/models/" in path for path in asked)
    assert asked["/v2/repository/index"] >= _EXAMPLES


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_loading_and_unloading_are_as_the_document_says(controlled: Any, mode: GenerationMode) -> None:
    """It ends with a load, so that what comes next finds a model; before that, everything is asked for without one."""
    asked = _ask_everything(controlled, mode)
    for verb in ("load", "unload"):
        assert asked[f"/v2/repository/models/model/{verb}"] >= _EXAMPLES
    if mode is GenerationMode.POSITIVE:
        unload = controlled["/v2/repository/models/model/unload"]["POST"]
        assert unload.Case(body={}).call(headers={"X-API-Key": _KEY}).status_code == 200
        _ask_everything(controlled, mode, model=False)
        load = controlled["/v2/repository/models/model/load"]["POST"]
        assert load.Case(body={}).call(headers={"X-API-Key": _KEY}).status_code == 200


def _ask_everything(document: Any, mode: GenerationMode, *, model: bool = True) -> Counter[str]:
    """Asks for all that is in `document`; returns how often each path was asked. `model`: there is one."""
    asked: Counter[str] = Counter()
    for result in document.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue
        if not model and "/repository/models/" in operation.path:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=_EXAMPLES if operation.method.upper() == "POST" else 1,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            asked[case.path] += 1
            # A schema cannot say that there must be as many numbers as the shape says, or as many in each column.
            sayable = "/repository/" in case.path or (case.path == "/predict" and model)
            excluded = [] if sayable else [positive_data_acceptance]
            case.call_and_validate(excluded_checks=excluded if model else [*excluded, not_a_server_error])

        ask()
    return asked
