"""Clients that people already have: KServe's SDK and Triton's asynchronous client, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from support.clients import kserve_python
from unit.runtime.support import Live

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def served(sum_dir: Path) -> Iterator[Live]:
    with Live(load_model(Config(model_dir=sum_dir)), model_dir=sum_dir, model_name="sum") as live:
        yield live


def answers(python: Path, program: str, *addresses: str) -> dict[str, Any]:
    """What the client's program printed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, str(HERE / program), *addresses], capture_output=True, text=True, timeout=120, check=False, env=kept
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_sdk_of_kserve(served: Live) -> None:
    told = answers(kserve_python(), "kserve_client.py", f"http://127.0.0.1:{served.port}")
    assert told == {
        "live": True, "ready": True, "model": True, "id": "mine", "v2": [[2, 1], [[6.0], [15.0]]], "binary": [[7.0]],
        "v1 model": True, "v1": {"predictions": [[6.0]]}, "refused": "HTTPStatusError 400",
    }  # fmt: skip


def test_tritons_asynchronous_client(served: Live) -> None:
    told = answers(Path(sys.executable), "triton_aio_client.py", f"127.0.0.1:{served.port}")
    assert told["sums"] == [[number + 2.0] for number in range(20)]
    assert (told["live"], told["ready"], told["model"], told["config"]) == (True, True, True, 32)
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert told["count"] >= 20
