"""What every other end-to-end test takes for granted of the cluster it runs on."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import ClusterInfo, Provider
from cluster.commands import output
from cluster.settings import UTILITY_IMAGE
from support.eventually import eventually

pytestmark = pytest.mark.needs("pods")

_RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Kubectl:
    """kubectl in one namespace of the cluster."""

    def __init__(self, cluster: ClusterInfo, namespace: str) -> None:
        self._command: list[str | Path] = [
            cluster.kubectl,
            "--kubeconfig",
            cluster.kubeconfig,
            "--namespace",
            namespace,
        ]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return output([*self._command, *arguments], stdin=stdin)

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply manifests."""
        self("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def ready(self, name: str) -> None:
        """Wait until a Deployment's pods are ready."""
        self("rollout", "status", f"deployment/{name}", "--timeout=240s")


@pytest.fixture
def kubectl(cluster: ClusterInfo, namespace: str) -> Kubectl:
    """kubectl in the test's namespace."""
    return Kubectl(cluster, namespace)


def web(name: str, script: str = "", **pod_metadata: Any) -> list[dict[str, Any]]:
    """A Deployment and a Service of a small web server that says ``name`` at / and a metric at /metrics."""
    labels = {"app": name}
    serve = (
        f"echo {name} >/www/index.html; echo 'cluster_test{{}} 1' >/www/metrics; {script} exec httpd -f -p 8080 -h /www"
    )
    container = {
        "name": "web",
        "image": UTILITY_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", serve],
        "securityContext": _RESTRICTED,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}},
        "volumeMounts": [{"name": "www", "mountPath": "/www"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "www", "emptyDir": {}}], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": labels, **pod_metadata}, "spec": pod}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    ]


def route(cluster: ClusterInfo, host: str, weights: dict[str, int]) -> dict[str, Any]:
    """An HTTPRoute that splits a host's requests over Services."""
    gateway_namespace, gateway = cluster.gateway
    backends = [{"name": name, "port": 80, "weight": weight} for name, weight in weights.items()]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"name": gateway, "namespace": gateway_namespace}],
            "hostnames": [host],
            "rules": [{"backendRefs": backends}],
        },
    }


def ask(url: str, host: str) -> str:
    """The body of a GET through the gateway."""
    request = urllib.request.Request(url, headers={"Host": host})
    with urllib.request.urlopen(request, timeout=20) as answer:
        body: bytes = answer.read()
    return body.decode().strip()


def test_restricted_pod_reaches_names_services_and_the_api_server(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(*web("web"))
    kubectl.ready("web")

    def run(*command: str) -> str:
        return kubectl("exec", "deployment/web", "--", *command)

    assert "uid=65532" in run("id")
    assert eventually(lambda: run("wget", "-q", "-O-", f"http://web.{namespace}.svc.cluster.local")) == "web\n"
    assert "Address" in run("nslookup", "kubernetes.default.svc.cluster.local")
    run("sh", "-c", 'nc -w 5 "$KUBERNETES_SERVICE_HOST" "$KUBERNETES_SERVICE_PORT" </dev/null')
    with pytest.raises(RuntimeError, match="Read-only file system"):
        run("touch", "/file")


def test_pod_outside_the_restricted_level_is_refused(kubectl: Kubectl) -> None:
    with pytest.raises(RuntimeError, match="violates PodSecurity"):
        kubectl("run", "root", f"--image={UTILITY_IMAGE}")


@pytest.mark.needs("gateway")
def test_gateway_splits_requests_by_weight(cluster: ClusterInfo, kubectl: Kubectl, namespace: str) -> None:
    host = f"{namespace}.example.com"
    kubectl.apply(*web("one"), *web("two"), route(cluster, host, {"one": 100, "two": 0}))
    kubectl.ready("one")
    kubectl.ready("two")
    eventually(lambda: ask(cluster.gateway_url, host))
    assert Counter(ask(cluster.gateway_url, host) for _ in range(30)) == {"one": 30}

    kubectl.apply(route(cluster, host, {"one": 80, "two": 20}))
    eventually(lambda: _equal(ask(cluster.gateway_url, host), "two"), interval=0.01)
    counts = Counter(ask(cluster.gateway_url, host) for _ in range(300))
    # 60 of 300 expected; outside of 25 to 100 less than once in ten million runs.
    assert 25 <= counts["two"] <= 100

    kubectl.apply(route(cluster, host, {"one": 0, "two": 100}))
    eventually(lambda: _equal(Counter(ask(cluster.gateway_url, host) for _ in range(20)), {"two": 20}))


@pytest.mark.needs("prometheus")
def test_prometheus_scrapes_annotated_pods(cluster: ClusterInfo, kubectl: Kubectl, namespace: str) -> None:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    kubectl.apply(*web("web", annotations=annotations))
    kubectl.ready("web")
    pod = kubectl("get", "pods", "-l", "app=web", "-o=jsonpath={.items[0].metadata.name}")
    query = urllib.parse.urlencode({"query": f'count_over_time(cluster_test{{namespace="{namespace}"}}[10s])'})

    def scraped() -> None:
        with urllib.request.urlopen(f"{cluster.prometheus_local_url}/api/v1/query?{query}", timeout=20) as answer:
            (sample,) = json.load(answer)["data"]["result"]
        assert sample["metric"]["pod"] == pod
        assert int(sample["value"][1]) >= 4

    eventually(scraped, errors=(AssertionError, OSError, ValueError))


@pytest.mark.needs("metrics-server")
def test_autoscaler_sees_cpu_and_scales(kubectl: Kubectl) -> None:
    kubectl.apply(*web("busy", script="(while true; do true; done) &"))
    kubectl.ready("busy")
    kubectl("autoscale", "deployment", "busy", "--cpu=50%", "--min=1", "--max=2")

    def scaled() -> None:
        status = json.loads(kubectl("get", "hpa", "busy", "-o=json"))["status"]
        assert status["currentMetrics"][0]["resource"]["current"]["averageUtilization"] > 50
        assert status["desiredReplicas"] == 2

    eventually(scaled, timeout=240, interval=1, errors=(AssertionError, LookupError, TypeError))


@pytest.mark.needs("faults")
def test_extended_resource_is_scheduled(provider: Provider, kubectl: Kubectl) -> None:
    resource = "example.com/accelerator"
    provider.set_extended_resource(resource, 1)
    for name in ("first", "second"):
        deployment, _ = web(name)
        limits = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]
        limits["limits"][resource] = 1
        kubectl.apply(deployment)
    kubectl.ready("first")

    def refused() -> None:
        events = kubectl("get", "events", "--field-selector=reason=FailedScheduling", "-o=jsonpath={.items[*].message}")
        assert f"Insufficient {resource}" in events

    eventually(refused)


@pytest.mark.needs("faults", "gateway")
def test_routes_are_served_while_the_gateways_controller_is_down(
    provider: Provider, cluster: ClusterInfo, kubectl: Kubectl, namespace: str
) -> None:
    host = f"{namespace}.example.com"
    kubectl.apply(*web("one"), *web("two"), route(cluster, host, {"one": 1, "two": 0}))
    kubectl.ready("one")
    kubectl.ready("two")
    eventually(lambda: ask(cluster.gateway_url, host))
    provider.stop_component("envoy-gateway")
    assert provider.running() is None
    kubectl.apply(route(cluster, host, {"one": 0, "two": 1}))
    assert {ask(cluster.gateway_url, host) for _ in range(20)} == {"one"}
    provider.start_component("envoy-gateway")
    # Envoy waits up to half a minute before it looks for its controller again.
    eventually(lambda: _equal(ask(cluster.gateway_url, host), "two"), timeout=180)
    assert provider.running() is not None


@pytest.mark.needs("faults")
@pytest.mark.parametrize("component", ["prometheus", "coredns", "kube-apiserver", "etcd", "kubelet", "containerd"])
def test_component_comes_back_after_a_kill(provider: Provider, kubectl: Kubectl, component: str) -> None:
    kubectl.apply(*web("web"))
    kubectl.ready("web")
    provider.stop_component(component)
    assert provider.running() is None
    provider.start_component(component)
    eventually(lambda: _equal(provider.running() is not None, True), timeout=180)
    eventually(lambda: _equal(kubectl("exec", "deployment/web", "--", "id")[:9], "uid=65532"), errors=(RuntimeError,))


@pytest.mark.needs("faults")
def test_audit_log_names_writes(cluster: ClusterInfo, kubectl: Kubectl, namespace: str) -> None:
    assert cluster.audit_log is not None
    kubectl("create", "configmap", "written")
    kubectl("get", "configmaps")
    entries = [json.loads(line) for line in cluster.audit_log.read_text().splitlines() if namespace in line]
    ours = [entry for entry in entries if entry["objectRef"].get("name") == "written"]
    assert [entry["verb"] for entry in ours] == ["create"]
    assert not any(entry["verb"] in ("get", "list", "watch") for entry in entries)


def _equal(found: object, expected: object) -> None:
    assert found == expected
