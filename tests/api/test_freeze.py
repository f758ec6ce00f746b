"""`serinus freeze` against a real API server: what is stored, what a dry run and a missing permission say."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.tables import ROOT, Kubectl, load, model_deployment
from api.test_rbac import as_user
from serinus.cli import main

pytestmark = pytest.mark.needs("apiserver")
Serinus = Callable[..., subprocess.CompletedProcess[str]]
HERE = "--operator-namespace"


def runs(kubeconfig: Path) -> Serinus:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT / "operator")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "serinus.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)

    return run


@pytest.fixture
def home(kubectl: Kubectl) -> Iterator[str]:
    """A namespace that stands for the operator's."""
    name = f"freeze-{secrets.token_hex(4)}"
    assert kubectl.run("create", "namespace", name).returncode == 0
    yield name
    kubectl.run("delete", "namespace", name, "--wait=false")


def stored(kubectl: Kubectl, home: str) -> dict[str, Any] | None:
    found = kubectl.run("-n", home, "get", "configmap", "serinus-freeze", "-o", "json", "--ignore-not-found").stdout
    data: dict[str, Any] | None = json.loads(found)["data"] if found.strip() else None
    return data


def test_freeze_and_unfreeze(kubectl: Kubectl, home: str) -> None:
    serinus = runs(kubectl.kubeconfig)
    done = serinus("freeze", "-n", "default", "--reason", "audit", "--dry-run", HERE, home, "-o", "yaml")
    assert done.returncode == main.OK, done.stderr
    assert "name: serinus-freeze" in done.stdout
    assert "nothing was stored" in done.stderr
    assert stored(kubectl, home) is None
    assert serinus("freeze", "-n", "default", "--reason", "audit", HERE, home).returncode == main.OK
    assert serinus("freeze", "-n", "pay", "--reason", "audit", "--until", "36h", HERE, home).returncode == main.OK
    found = stored(kubectl, home) or {}
    whoami = json.loads(kubectl.run("auth", "whoami", "-o", "json").stdout)["status"]["userInfo"]["username"]
    assert (found["namespaces"], found["reason"], "until" in found) == ("default,pay", "audit", False)
    assert found["by"].startswith(f"{whoami} at 20")
    assert kubectl.apply(model_deployment("frozen-scorer", load("base.yaml"))).returncode == 0
    shown = serinus("status", "frozen-scorer", "-n", "default", HERE, home).stdout
    assert "frozen   releases are frozen in default, pay: audit" in shown
    done = serinus("unfreeze", "-n", "default", HERE, home)
    assert done.stdout == "releases are frozen in pay: audit\n"
    assert "frozen" not in serinus("status", "frozen-scorer", "-n", "default", HERE, home).stdout.replace(
        "frozen-scorer", ""
    )
    assert serinus("unfreeze", "-A", "--dry-run", HERE, home).returncode == main.OK
    assert stored(kubectl, home) is not None
    for _ in range(2):
        done = serinus("unfreeze", "-A", HERE, home)
        assert (done.returncode, done.stdout) == (main.OK, "releases are not frozen\n")
    assert stored(kubectl, home) is None


def test_what_is_wrong_is_said_and_nothing_is_written(kubectl: Kubectl, home: str) -> None:
    serinus = runs(kubectl.kubeconfig)
    done = serinus("freeze", "--reason", "audit", HERE, home)
    assert (done.returncode, done.stdout) == (main.USAGE, "")
    assert "say where" in done.stderr
    done = serinus("freeze", "-A", "--reason", "audit", HERE, "nowhere-at-all")
    assert done.returncode == main.FAILED
    assert "there is no namespace 'nowhere-at-all'" in done.stderr
    done = serinus("freeze", "-A", "--reason", "audit")
    assert done.returncode == main.FAILED
    assert "no operator runs in namespace 'serinus-system'" in done.stderr


def test_without_permission(kubectl: Kubectl, home: str, tmp_path: Path) -> None:
    assert kubectl.run("-n", home, "create", "serviceaccount", "visitor").returncode == 0
    token = kubectl.run("-n", home, "create", "token", "visitor").stdout.strip()
    serinus = runs(as_user(kubectl, token, tmp_path / "kubeconfig"))
    for arguments in (("freeze", "-A", "--reason", "audit"), ("unfreeze", "-A")):
        done = serinus(*arguments, HERE, home)
        assert (done.returncode, done.stdout) == (main.FAILED, "")
        assert f"system:serviceaccount:{home}:visitor may not change ConfigMap serinus-freeze" in done.stderr
        assert "docs/gates.md" in done.stderr
