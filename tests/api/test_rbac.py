"""The operator, as the chart's service account and under the chart's roles, is refused nothing."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.tables import HERE, ROOT, Kubectl, load, merge, model_deployment
from cluster.wait import until

pytestmark = pytest.mark.needs("apiserver")
CHILDREN = ("controllerrevision", "deployment", "service", "hpa", "pdb", "podmonitor", "httproute")


@pytest.fixture(scope="module")
def kinds(kubectl: Kubectl) -> Iterator[None]:
    """HTTPRoute and PodMonitor exist."""
    stubs = HERE / "stub-crds.yaml"
    kubectl.establish(stubs)
    # The operator looks at the server's discovery once, when it starts; it lags behind the CRDs.
    listed = ("get", "--raw", "/apis/monitoring.coreos.com/v1"), ("get", "--raw", "/apis/gateway.networking.k8s.io/v1")
    until("discovery", lambda: all(kubectl.run(*query).returncode == 0 for query in listed), timeout=120)
    yield
    kubectl.run("delete", "-f", str(stubs), "--wait=false")


def install(kubectl: Kubectl, helm: Path, name: str, watch: str | None) -> str:
    """Stores the chart's objects in a namespace `name`; returns a token of its service account."""
    options = ["--set", f"fullnameOverride={name},crds.install=false,podDisruptionBudget.enabled=false,replicas=1"]
    if watch:
        options += ["--set", f"watchNamespaces={{{watch}}}"]
    rendered = subprocess.run(
        [helm, "template", "mine", ROOT / "charts/serinus", "-n", name, *options], capture_output=True, text=True
    )
    assert rendered.returncode == 0, rendered.stderr
    objects = [obj for obj in yaml.safe_load_all(rendered.stdout) if obj and obj["kind"] != "Deployment"]
    assert kubectl.run("create", "namespace", name).returncode == 0
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    applied = kubectl.run("apply", "-f", "-", stdin=listed)
    assert applied.returncode == 0, applied.stderr
    return kubectl.run("-n", name, "create", "token", name).stdout.strip()


def as_user(kubectl: Kubectl, token: str, path: Path) -> Path:
    """A kubeconfig for the same server with a token instead of the administrator's credentials."""
    shown = kubectl.run("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
    config: dict[str, Any] = json.loads(shown.stdout)
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path.write_text(json.dumps(config))
    return path


def pretend_ready(kubectl: Kubectl, namespace: str) -> None:
    """Says what the Deployment controller would say of running pods."""
    (deployment,) = json.loads(kubectl.run("-n", namespace, "get", "deployment", "-o", "json").stdout)["items"]
    status = {
        "observedGeneration": 99,
        **dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2),
    }
    done = kubectl.run(
        "-n", namespace, "patch", "deployment", deployment["metadata"]["name"], "--subresource=status",
        "--type=merge", "-p", json.dumps({"status": status}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize(
    "mode",
    [
        "cluster",
        "namespace",
    ],
)
def test_the_operator_is_refused_nothing(mode: str, apiserver: Any, kubectl: Kubectl, tmp_path: Path) -> None:
    if not Path(apiserver.helm).is_file():
        pytest.skip(f"no helm at {apiserver.helm}")
    home = f"rbac-{mode}-{secrets.token_hex(3)}"
    team = f"{home}-team"
    assert kubectl.run("create", "namespace", team).returncode == 0
    token = install(kubectl, Path(apiserver.helm), home, team if mode == "namespace" else None)
    spec = merge(load("base.yaml"), {"release": {"steps": None}})
    assert kubectl.apply(model_deployment("scorer", spec, team)).returncode == 0
    log = tmp_path / "operator.log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(as_user(kubectl, token, tmp_path / "kubeconfig")),
        "SERINUS_PROMETHEUS_URL": "http://127.0.0.1:9",
        "SERINUS_LEASE_NAMESPACE": home,
        "SERINUS_LEASE_NAME": home,
        "SERINUS_WATCH_NAMESPACES": team if mode == "namespace" else "",
        "SERINUS_HTTP_PORT": "0",
        "SERINUS_LOG_FORMAT": "text",
    }
    with log.open("w") as output:
        operator = subprocess.Popen([sys.executable, "-m", "serinus"], env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 180
        for kind in CHILDREN:
            left = max(1, round(deadline - time.monotonic()))
            found = kubectl.run(
                "-n", team, "wait", "--for=create", kind, "-l", "serving.serinus.dev/deployment=scorer",
                f"--timeout={left}s",
            )  # fmt: skip
            assert found.returncode == 0, f"{kind}: {found.stderr}\n{log.read_text()[-4000:]}"
            if kind == "deployment":
                pretend_ready(kubectl, team)
        told = kubectl.run("-n", team, "wait", "--for=create", "events.events.k8s.io", "--all", "--timeout=120s")
        assert told.returncode == 0, told.stderr
    finally:
        operator.send_signal(signal.SIGTERM)
        operator.wait(timeout=60)
        # Nothing ends namespaces here, and an operator of a later run should not find this one's ModelDeployment.
        kubectl.run("-n", team, "delete", "modeldeployments", "--all")
        kubectl.run("delete", "namespace", home, team, "--wait=false")
        kubectl.run("delete", "clusterrole,clusterrolebinding", home, "--ignore-not-found")
    assert "forbidden" not in log.read_text().lower()
