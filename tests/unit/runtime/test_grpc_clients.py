"""The clients that people use, against the gRPC port. Their generated modules cannot share a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.paths import cache
from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime import support

_KSERVE = (
    "kserve==0.21.0", "pandas==3.1.1", "python-dateutil==4.0.0", "six==1.17.0", "httpx==0.28.1", "httpcore==1.0.9",
    "h11==0.16.0", "anyio==4.16.0", "idna==3.20", "certifi==2026.10.18", "orjson==3.13.0", "psutil==7.2.2",
    "cloudevents==1.13.0", "deprecation==2.1.0", "packaging==26.3",
)  # fmt: skip
"""What the SDK's client imports; the SDK as a whole would bring a model server with it."""


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.Live]:
    """A model with every datatype, named `echo`."""
    folder = support.echo_model(tmp_path_factory.mktemp("models") / "echo")
    settings = {"model_dir": folder, "model_name": "echo", "queue_max_length": 50_000}
    with support.Live(load_model(Config(model_dir=folder)), grpc_port=0, **settings) as live:
        yield live


def _run(script: str, *arguments: str, path: Path | None = None) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script)), *arguments],
        env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture
def waiting(engine: support.GateEngine) -> Iterator[support.Live]:
    """A model that does not answer before the test is over."""
    engine.gate.clear()
    with support.Live(support.gated(engine), grpc_port=0) as live:
        yield live
        engine.gate.set()


def test_tritonclient(echo: support.Live, waiting: support.Live) -> None:
    ports = [live.server.grpc_port for live in (echo, waiting)]
    told = _run("triton_grpc_client.py", *(f"127.0.0.1:{port}" for port in ports))
    assert told.pop("wrong") == []
    refused = {name: told.pop(name) for name in ("load", "other", "deflate", "incomplete")}
    assert refused["load"][0] == "StatusCode.PERMISSION_DENIED"
    assert refused["other"] == ["StatusCode.NOT_FOUND", "model 'other' is not served here; this server has 'echo'"]
    assert refused["deflate"][0] == "StatusCode.UNIMPLEMENTED"
    assert refused["incomplete"][0] == "StatusCode.INVALID_ARGUMENT"
    assert "'in_UINT8' is missing" in refused["incomplete"][1]
    assert "'in_UINT8' is missing" in told.pop("stream")
    assert len(told.pop("metadata")) == 13
    assert int(told.pop("count")) >= 4 * 2 + 20_000
    assert told == {
        "config": 32,
        "index": "READY",
        "server": "serinus-runtime",
        "timeout": "StatusCode.DEADLINE_EXCEEDED",
    }


@pytest.fixture(scope="module")
def kserve() -> Path:
    """A folder with the kserve SDK and what its client imports, filled once."""
    folder = cache() / "clients" / "kserve-0.21.0"
    if not (folder / ".ready").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--upgrade", "--target", str(folder), *_KSERVE], check=True, timeout=600)
        (folder / ".ready").touch()
    return folder


def test_the_client_of_kserve(echo: support.Live, sum_dir: Path, kserve: Path) -> None:
    with support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, model_dir=sum_dir) as plain:
        told = _run(
            "kserve_grpc_client.py",
            f"127.0.0.1:{echo.server.grpc_port}",
            f"127.0.0.1:{plain.server.grpc_port}",
            path=kserve,
        )
    assert told["wrong"] == []
    assert "StatusCode.NOT_FOUND" in told["refusal"]
