"""Envoy Gateway: its chart from the Go module, its CRDs, and the Gateway that tests and the demo use."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.addons_host import Manifest
from cluster.commands import output
from cluster.gobuild import ENVOY_GATEWAY, HELM, KUBERNETES, module_folder
from cluster.paths import cache
from cluster.settings import GATEWAY

SYSTEM = "envoy-gateway-system"
CONTROLLER = "envoy-gateway"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` placeholders; KeyError names one without a value."""
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match.group(1)], template)


def chart() -> Path:
    """The chart, copied from the module and filled in, in the cache."""
    target = cache() / "charts" / f"gateway-helm-{ENVOY_GATEWAY.version}"
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        source = module_folder(ENVOY_GATEWAY) / "charts" / "gateway-helm"
        shutil.copytree(source, partial, copy_function=shutil.copyfile)
        for folder in partial.glob("**/"):
            folder.chmod(0o755)
        image = {
            "GatewayImage": f"envoyproxy/gateway:{ENVOY_GATEWAY.version}",
            "GatewayImagePullPolicy": "IfNotPresent",
        }
        (partial / "values.yaml").write_text(fill((partial / "values.tmpl.yaml").read_text(), image))
        partial.replace(target)
    return target


def apply_crds(kubeconfig: Path) -> None:
    """Install the CRDs of Gateway API and Envoy Gateway, which takes the API server some seconds."""
    folder = chart() / "charts" / "crds" / "crds"
    kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "--recursive", "-f", str(folder))


def install(kubeconfig: Path, values: Mapping[str, Any]) -> None:
    """Install (or upgrade) the chart, its CRDs excepted."""
    command: list[str | Path] = [HELM.binary("helm"), "upgrade", "--install", "eg", chart(), "--namespace", SYSTEM]
    command += ["--create-namespace", "--set", "crds.enabled=false", "--values", "-"]
    output(command, stdin=yaml.safe_dump(dict(values)), env={"KUBECONFIG": str(kubeconfig)})


def values(image: str) -> dict[str, Any]:
    """Values for a cluster of one node: our image, one replica, no election, not scraped."""
    kubernetes = {
        "leaderElection": {"disable": True},
        "shutdownManager": {"image": image},
    }
    return {
        "global": {"images": {"envoyGateway": {"image": image, "pullPolicy": "IfNotPresent"}}},
        "deployment": {
            "envoyGateway": {
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                "readinessProbe": {"periodSeconds": 1},
            },
            "pod": {"annotations": {"prometheus.io/scrape": "false"}},
        },
        "topologyInjector": {"enabled": False},
        "config": {"envoyGateway": {"provider": {"type": "Kubernetes", "kubernetes": kubernetes}}},
    }


def objects(envoy_image: str | None, service: Mapping[str, Any]) -> list[Manifest]:
    """The proxy's shape, the class ``eg`` and the Gateway, open to routes from all namespaces."""
    namespace, name = GATEWAY
    container: Manifest = {"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
    if envoy_image is not None:
        container["image"] = envoy_image
    # The stock probes look every ten seconds, and the gateway is not programmed before they have seen the proxy ready.
    often = {"startupProbe": {"periodSeconds": 1}, "readinessProbe": {"periodSeconds": 1}}
    probes = [{"name": name, **often} for name in ("envoy", "shutdown-manager")]
    patch = {"type": "StrategicMerge", "value": {"spec": {"template": {"spec": {"containers": probes}}}}}
    provider = {"envoyService": dict(service), "envoyDeployment": {"container": container, "patch": patch}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": {"name": "serinus", "namespace": SYSTEM},
            "spec": {
                "provider": {"type": "Kubernetes", "kubernetes": provider},
                "shutdown": {"drainTimeout": "10s", "minDrainDuration": "2s"},
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "eg"},
            "spec": {
                "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
                "parametersRef": {
                    "group": "gateway.envoyproxy.io",
                    "kind": "EnvoyProxy",
                    "name": "serinus",
                    "namespace": SYSTEM,
                },
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "gatewayClassName": "eg",
                "listeners": [
                    {
                        "name": "http",
                        "protocol": "HTTP",
                        "port": 80,
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            },
        },
    ]


def stop_controller(kubeconfig: Path) -> None:
    """Kill Envoy Gateway and keep it from coming back; the proxies go on with what they know."""
    kubectl(kubeconfig, "-n", SYSTEM, "scale", f"deployment/{CONTROLLER}", "--replicas=0")
    selector = f"--selector=control-plane={CONTROLLER}"
    kubectl(kubeconfig, "-n", SYSTEM, "delete", "pods", selector, "--force", "--grace-period=0", "--wait=true")


def start_controller(kubeconfig: Path) -> None:
    """Let Envoy Gateway run again and wait until it does."""
    kubectl(kubeconfig, "-n", SYSTEM, "scale", f"deployment/{CONTROLLER}", "--replicas=1")
    kubectl(kubeconfig, "-n", SYSTEM, "rollout", "status", f"deployment/{CONTROLLER}", "--timeout=90s")


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl to its end."""
    return output([KUBERNETES.binary("kubectl"), "--kubeconfig", kubeconfig, *arguments], stdin=stdin)


def apply(kubeconfig: Path, documents: list[Manifest]) -> None:
    """Apply manifests, server side."""
    text = yaml.safe_dump_all(documents)
    kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
