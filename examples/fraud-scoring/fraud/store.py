"""The demo's model store: ConfigMaps behind one small web server, so that it works in any cluster.

A real store is S3, GCS, a registry; Serinus reads all of them the same way: a directory, and the digest of its files.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

from fraud.train import Built

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"
NAMESPACE, NAME, DEPLOYMENT = "fraud", "model-store", "fraud-scorer"
PORT = 8000
_LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "fraud-scoring"}

Manifest = dict[str, Any]


def manifests(models: Iterable[Built], image: str) -> list[Manifest]:
    """ConfigMaps, Deployment and Service of the store. `image` is any that has /opt/serinus/bin/python."""
    ordered = sorted(models, key=lambda model: model.version)
    return [*(config_map(model) for model in ordered), _deployment(ordered, image), _service()]


def config_map(model: Built) -> Manifest:
    """One version's files. Immutable and named by content, so that a changed model is never a stale mount."""
    files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(model.directory.iterdir())}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _config_name(model), "namespace": NAMESPACE, "labels": _LABELS},
        "immutable": True,
        "binaryData": files,
    }


def model_deployment(model: Built, gateway: str, gateway_namespace: str) -> str:
    """The YAML a user would apply for this version, filled in from `manifests/`."""
    text = (MANIFESTS / f"modeldeployment-{model.version}.yaml").read_text()
    return Template(text).substitute(digest=model.digest, gateway=gateway, gateway_namespace=gateway_namespace)


def _config_name(model: Built) -> str:
    return f"model-fraud-{model.version}-{model.digest.removeprefix('sha256:')[:10]}"


def _deployment(models: list[Built], image: str) -> Manifest:
    mounts = [{"name": m.version, "mountPath": f"/srv/fraud/{m.version}", "readOnly": True} for m in models]
    container = {
        "name": "http",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/serinus/bin/python", "-m", "http.server", str(PORT), "--directory", "/srv"],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/fraud/", "port": "http"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": m.version, "configMap": {"name": _config_name(m)}} for m in models],
        "terminationGracePeriodSeconds": 2,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def _service() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS},
        "spec": {"selector": _LABELS, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
