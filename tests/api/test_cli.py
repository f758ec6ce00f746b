"""The command line against a real API server, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from api.tables import Kubectl, load, model_deployment
from serinus.cli import main

pytestmark = pytest.mark.needs("apiserver")
ROOT = Path(__file__).parents[2]
Serinus = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def serinus(kubectl: Kubectl) -> Serinus:
    """Runs `serinus ARGUMENTS` against the API server."""
    environment = {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "PYTHONPATH": str(ROOT / "operator")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "serinus.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)

    return run


@pytest.fixture
def name(kubectl: Kubectl, request: pytest.FixtureRequest) -> str:
    """A ModelDeployment that no operator works on."""
    chosen = "cli-" + str(abs(hash(request.node.name)) % 10**8)
    done = kubectl.apply(model_deployment(chosen, load("base.yaml")))
    assert done.returncode == 0, done.stderr
    return chosen


def annotations(kubectl: Kubectl, name: str) -> dict[str, str]:
    found = json.loads(kubectl.run("get", "mdep", name, "-o", "json").stdout)
    return {
        key.rpartition("/")[2]: value
        for key, value in found["metadata"].get("annotations", {}).items()
        if key.startswith("serving.serinus.dev/")
    }


@pytest.mark.parametrize("verb", ["promote", "approve", "abort", "retry"])
def test_a_verb_is_an_annotation_that_is_new_each_time(
    serinus: Serinus, kubectl: Kubectl, name: str, verb: str
) -> None:
    done = serinus(verb, name)
    assert done.returncode == main.OK, done.stderr
    assert name in done.stdout
    value = annotations(kubectl, name)[verb]
    assert value.startswith("#20"), "who asked and when, nothing else"
    whoami = json.loads(kubectl.run("auth", "whoami", "-o", "json").stdout)
    assert value.endswith(f" {whoami['status']['userInfo']['username']}"), "as the API server knows us"


def test_pause_and_resume(serinus: Serinus, kubectl: Kubectl, name: str) -> None:
    assert serinus("pause", name).returncode == main.OK
    assert annotations(kubectl, name)["pause"] == "true"
    assert serinus("resume", name, "-n", "default").returncode == main.OK
    assert "pause" not in annotations(kubectl, name)


def test_what_is_not_there_is_told_with_what_is(serinus: Serinus, name: str) -> None:
    done = serinus("status", "nobody")
    assert done.returncode == main.FAILED
    assert name in done.stderr
    done = serinus("rollback", name, "--to", "v0")
    assert done.returncode == main.FAILED
    assert "no kept revision is called 'v0'" in done.stderr


def test_an_object_that_no_operator_has_seen_is_shown_and_explained(serinus: Serinus, name: str) -> None:
    assert "nothing is live yet" in serinus("status", name).stdout
    assert json.loads(serinus("status", name, "-o", "json").stdout) == {"observedGeneration": -1}
    found = json.loads(serinus("explain", name, "-o", "json").stdout)
    assert [each["symptom"] for each in found] == ["the operator has seen generation -1 of 1"]


def test_waiting_has_an_end(serinus: Serinus, name: str) -> None:
    done = serinus("status", name, "--wait", "--timeout", "0.1")
    assert done.returncode == main.TIMED_OUT
    assert "still under way" in done.stderr
