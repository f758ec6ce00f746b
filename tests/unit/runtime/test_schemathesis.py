"""The server against its own OpenAPI document: schemathesis makes requests, right ones and wrong ones, from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime import support
from unit.runtime.support import Live

_EXAMPLES = 10


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = support.scorer_model(tmp_path_factory.mktemp("models") / "m")
    with Live(load_model(Config(model_dir=directory)), model_dir=directory) as live:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_the_document_says_is_so(served: Any, mode: GenerationMode) -> None:
    """No 5xx, no status, content type or body that is not in the document; what fits it is taken, the rest refused."""
    asked = 0
    for result in served.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
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
            nonlocal asked
            asked += 1
            # A schema cannot say that there must be as many numbers as the shape says, or as many in each column.
            unsayable = [] if case.path == "/predict" else [positive_data_acceptance]
            case.call_and_validate(excluded_checks=unsayable)

        ask()
    assert asked >= 3 * _EXAMPLES
