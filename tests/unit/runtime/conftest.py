"""Models and a server that the tests of this folder share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if built := os.environ.get("SERINUS_RUNTIME_BUILD"):
    # The compiled package, as tests/support/compiled.py makes it, instead of the sources.
    sys.path.insert(0, built)

from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime import support


@pytest.fixture(scope="session")
def sum_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of `support.sum_model`."""
    return support.sum_model(tmp_path_factory.mktemp("models") / "sum")


@pytest.fixture(scope="session")
def live(sum_dir: Path) -> Iterator[support.Live]:
    """A server for `sum_dir` with small limits."""
    settings = {"max_request_bytes": 100_000, "model_version": "v7", "revision": "r1", "model_dir": sum_dir}
    with support.Live(load_model(Config(model_dir=sum_dir)), **settings) as server:
        yield server


@pytest.fixture
def engine() -> Iterator[support.GateEngine]:
    """An engine that the test can hold up."""
    made = support.GateEngine()
    yield made
    made.gate.set()
