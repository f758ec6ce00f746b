"""Flagger beside Serinus: the process, its CRDs, and the objects of one canary on Gateway API.

Flagger wants a Deployment. It gets the pods that Serinus would make, from the same code; its metrics are the
templates of its own Gateway API example, on the runtime's series in place of Istio's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from bench.exposure.trials import ERRORS, LATENCY, Contender
from cluster import ClusterInfo
from cluster.gobuild import FLAGGER, build, module_folder
from serinus.api.spec import ModelDeploymentSpec
from serinus.objects.context import Context
from serinus.objects.pods import pod_template
from serinus.release.revisions import Revision

Object = dict[str, Any]
NAME = "fraud-scorer"
PORT = 18080
REPLICAS = 2
DEADLINE = 300
"""Seconds for pods to become ready; the example's 60 would be about this machine and not about Flagger."""
LOOKS_BACK = 65.0
"""Seconds that a trial is still in sight of the next one's queries."""

_OWN = 'namespace="{{ namespace }}", pod=~"{{ target }}-[0-9a-z]+-[0-9a-z]+"'
"""A canary's pods, not those of `-primary`: names of ReplicaSets and pods have no dash in them."""


def queries() -> dict[str, str]:
    """PromQL by name: percent of failed requests, and the p99 in seconds."""
    good = f'sum(rate(serinus_requests_total{{{_OWN}, code!~"5..|429"}}[{{{{ interval }}}}]))'
    all_of_them = f"sum(rate(serinus_requests_total{{{_OWN}}}[{{{{ interval }}}}]))"
    buckets = f"sum(rate(serinus_request_duration_seconds_bucket{{{_OWN}}}[{{{{ interval }}}}])) by (le)"
    return {
        "error-rate": f"100 - ({good} or vector(0)) / {all_of_them} * 100",
        "latency": f"histogram_quantile(0.99, {buckets})",
    }


class Process:
    """Flagger on this host."""

    def __init__(self, cluster: ClusterInfo, log: Path) -> None:
        build(FLAGGER)
        self._log = log.open("ab")
        command = [FLAGGER.binary("flagger"), "-kubeconfig", cluster.kubeconfig, "-mesh-provider", "gatewayapi:v1"]
        command += ["-metrics-server", cluster.prometheus_local_url, "-port", str(PORT), "-log-level", "info"]
        self._process = subprocess.Popen(
            [str(part) for part in command], stdout=self._log, stderr=self._log, env={**os.environ}
        )

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def crds() -> Path:
    """Flagger's CRDs, from its module."""
    return module_folder(FLAGGER) / "artifacts" / "flagger" / "crd.yaml"


def deployment(namespace: str, spec: ModelDeploymentSpec) -> Object:
    """The user's Deployment: the pods that Serinus would make for this spec."""
    context = Context(namespace, NAME, "", spec)
    template = pod_template(context, Revision.target(NAME, spec))
    labels = {"app": NAME}
    template["metadata"]["labels"] = labels
    del template["spec"]["topologySpreadConstraints"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": REPLICAS,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": DEADLINE,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def canary(namespace: str, host: str, gateway: tuple[str, str], prometheus: str, contender: Contender) -> list[Object]:
    """The canary as in Flagger's Gateway API example, and its metrics."""
    limits = {"error-rate": float(ERRORS.rstrip("%")), "latency": float(LATENCY.removesuffix("ms")) / 1000}
    templates = [
        {
            "apiVersion": "flagger.app/v1beta1",
            "kind": "MetricTemplate",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"provider": {"type": "prometheus", "address": prometheus}, "query": query},
        }
        for name, query in queries().items()
    ]
    metrics = [
        {
            "name": name,
            "templateRef": {"name": name, "namespace": namespace},
            "thresholdRange": {"max": limits[name]},
            "interval": "1m" if name == "error-rate" else "30s",
        }
        for name in limits
    ]
    body: Object = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "progressDeadlineSeconds": DEADLINE,
            "service": {
                "port": 80,
                "targetPort": "http",
                "portName": "http",
                "hosts": [host],
                "gatewayRefs": [{"name": gateway[1], "namespace": gateway[0]}],
            },
            "analysis": {
                "interval": f"{contender.interval}s",
                "threshold": contender.threshold,
                "maxWeight": 50,
                "stepWeight": 10,
                "metrics": metrics,
            },
        },
    }
    return [*templates, body]
