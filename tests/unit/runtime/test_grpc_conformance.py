"""h2spec, the conformance suite for HTTP/2, against the gRPC port: all of it, the strict cases as well."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cluster import gobuild
from serinus_runtime.config import Config
from serinus_runtime.server import load_model
from unit.runtime import support

_CASES = 146


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The built program; it comes from the Go module proxy once, and then from the cache."""
    gobuild.build(gobuild.H2SPEC)
    return gobuild.H2SPEC.binary("h2spec")


def test_every_case_of_h2spec_passes(h2spec: Path, sum_dir: Path) -> None:
    with support.Live(load_model(Config(model_dir=sum_dir)), grpc_port=0, model_dir=sum_dir) as live:
        done = subprocess.run(
            [h2spec, "--strict", "--host", "127.0.0.1", "--port", str(live.server.grpc_port), "--timeout", "5"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    assert tuple(map(int, found.groups())) == (_CASES, _CASES, 0, 0), done.stdout.partition("Failures:")[2]
    assert live.server._grpc is not None
    assert live.server._grpc.connections == 0
