"""Prometheus in a pod, for clusters whose nodes are not the host."""

from __future__ import annotations

from typing import Any

import yaml

from cluster.addons_host import Manifest, cluster_role, read
from cluster.addons_prometheus import SCRAPE_INTERVAL

NAMESPACE = "monitoring"
URL = f"http://prometheus.{NAMESPACE}.svc.cluster.local:9090"
IMAGE = "prom/prometheus:v3.5.0"
_POD = "__meta_kubernetes_pod_"
_ANNOTATION = f"{_POD}annotation_prometheus_io_"


def config() -> dict[str, Any]:
    """Prometheus's configuration: pods by annotation, with the labels ``namespace`` and ``pod``."""
    relabelling = [
        {"action": "keep", "source_labels": [f"{_ANNOTATION}scrape"], "regex": "true"},
        {"action": "keep", "source_labels": [f"{_POD}phase"], "regex": "Running"},
        # Discovery yields one target for every declared port; with this address they are equal and one is kept.
        {
            "source_labels": [f"{_POD}ip", f"{_ANNOTATION}port"],
            "regex": "(.+);(.+)",
            "replacement": "$1:$2",
            "target_label": "__address__",
        },
        {"source_labels": [f"{_ANNOTATION}path"], "regex": "(.+)", "target_label": "__metrics_path__"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{_POD}name"], "target_label": "pod"},
    ]
    job = {"job_name": "pods", "kubernetes_sd_configs": [{"role": "pod"}], "relabel_configs": relabelling}
    return {
        "global": {"scrape_interval": SCRAPE_INTERVAL, "scrape_timeout": SCRAPE_INTERVAL},
        "scrape_configs": [job],
    }


def manifests(node_port: int) -> list[Manifest]:
    """Namespace, rights, configuration, Deployment and Service."""
    name, labels = "prometheus", {"app": "prometheus"}
    metadata: Manifest = {"name": name, "namespace": NAMESPACE}
    rbac = "rbac.authorization.k8s.io"
    container = {
        "name": name,
        "image": IMAGE,
        "args": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
        "ports": [{"containerPort": 9090}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/prometheus"}],
    }
    pod = {
        "serviceAccountName": name,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        cluster_role("serinus:prometheus", [read([""], "pods")]),
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "serinus-prometheus"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "serinus:prometheus"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"prometheus.yml": yaml.safe_dump(config())},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 9090, "nodePort": node_port}]},
        },
    ]
