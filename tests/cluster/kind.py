"""A cluster in containers: kind, where a container engine answers."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster import addons_gateway, addons_prometheus_pod, engine, images
from cluster.commands import output
from cluster.errors import ClusterError
from cluster.gobuild import ENVOY_GATEWAY, HELM, KUBERNETES, build
from cluster.lock import locked
from cluster.paths import run_folder
from cluster.progress import stage
from cluster.provider import ClusterInfo
from cluster.settings import GATEWAY
from cluster.wait import until

NAME = "serinus"
# Ports of the node, and the same ports of the host's loopback device.
GATEWAY_PORT, PROMETHEUS_PORT = 30080, 30090


def config() -> dict[str, Any]:
    """kind's configuration: one node, the gateway and Prometheus reachable from the host."""
    mappings = [
        {"containerPort": port, "hostPort": port, "listenAddress": "127.0.0.1", "protocol": "TCP"}
        for port in (GATEWAY_PORT, PROMETHEUS_PORT)
    ]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": NAME,
        "nodes": [{"role": "control-plane", "extraPortMappings": mappings}],
    }


def create_command(kubeconfig: Path) -> list[str | Path]:
    """The command that creates the cluster; the configuration comes on stdin. The user's kubeconfig is left alone."""
    return ["kind", "create", "cluster", "--name", NAME, "--config", "-", "--kubeconfig", kubeconfig, "--wait", "120s"]


def load_command(archive: Path) -> list[str | Path]:
    """The command that loads an archive's images into the node."""
    return ["kind", "load", "image-archive", "--name", NAME, archive]


def delete_command(kubeconfig: Path) -> list[str | Path]:
    """The command that deletes the cluster."""
    return ["kind", "delete", "cluster", "--name", NAME, "--kubeconfig", kubeconfig]


def gateway_service() -> dict[str, Any]:
    """The proxy's Service: on the node's port that the host sees."""
    port = {"name": "http-80", "port": 80, "protocol": "TCP", "nodePort": GATEWAY_PORT}
    return {"type": "NodePort", "patch": {"type": "StrategicMerge", "value": {"spec": {"ports": [port]}}}}


def provider_environment(engine_name: str | None) -> Mapping[str, str]:
    """kind has to be told when the engine is not Docker."""
    return {"KIND_EXPERIMENTAL_PROVIDER": "podman"} if engine_name == "podman" else {}


class Kind:
    """The provider ``kind``. It has no metrics-server and no faults."""

    name = "kind"
    capabilities = frozenset({"apiserver", "pods", "gateway", "prometheus"})

    def __init__(self) -> None:
        self._run = run_folder(self.name)
        self._kubeconfig = self._run / "kubeconfig"

    def unavailable(self) -> str | None:
        """Why kind cannot be used."""
        if engine.engine() is None:
            return "no container engine answers; start Docker or Podman"
        if shutil.which("kind") is None:
            return "a container engine answers, but kind is not installed; install kind, or use CLUSTER=node as root"
        return None

    def start(self) -> ClusterInfo:
        """Create the cluster and its add-ons, or find that it runs."""
        if reason := self.unavailable():
            raise ClusterError(reason)
        with locked(self.name):
            if (info := self.running()) is not None:
                return info
            build(KUBERNETES, HELM)
            self._delete()
            self._run.mkdir(parents=True)
            with stage("kind create cluster"):
                self._kind(create_command(self._kubeconfig), yaml.safe_dump(config()))
            with stage("add-ons"):
                self._add_ons()
            info = self._info()
            (self._run / "cluster.json").write_text(json.dumps(info.to_json()))
            return info

    def running(self) -> ClusterInfo | None:
        """The cluster, if it was brought up to the end and its API server is ready."""
        if not (self._run / "cluster.json").exists():
            return None
        try:
            ready = addons_gateway.kubectl(self._kubeconfig, "get", "--raw", "/readyz", "--request-timeout=5s")
        except ClusterError:
            return None
        return self._info() if ready == "ok" else None

    def stop(self) -> None:
        """Delete the cluster."""
        with locked(self.name):
            self._delete()

    def build_image(self, name: str) -> Path:
        """Build with the container engine on the Containerfile's own base."""
        return images.archive(images.get(name), engine.build, f"{engine.RECIPE} {platform.machine()}")

    def load_image(self, archive: Path) -> None:
        """Load the images of a docker archive into the node."""
        self._kind(load_command(archive))

    def status(self) -> list[str]:
        """The nodes that kind knows."""
        return self._kind(["kind", "get", "nodes", "--name", NAME]).splitlines()

    def logs(self, component: str) -> str:
        """The output of a pod of kube-system with that label."""
        return addons_gateway.kubectl(self._kubeconfig, "-n", "kube-system", "logs", "-l", f"component={component}")

    def stop_component(self, name: str) -> None:
        """Not possible."""
        raise ClusterError(f"the kind provider cannot stop {name}; use CLUSTER=node for tests of faults")

    def start_component(self, name: str) -> None:
        """Not possible."""
        raise ClusterError(f"the kind provider cannot start {name}; use CLUSTER=node for tests of faults")

    def set_extended_resource(self, name: str, count: int) -> None:
        """Give the node a resource."""
        patch = json.dumps({"status": {"capacity": {name: str(count)}, "allocatable": {name: str(count)}}})
        arguments = ["patch", "node", f"{NAME}-control-plane", "--subresource=status", "--type=merge", "-p", patch]
        addons_gateway.kubectl(self._kubeconfig, *arguments)

    def _add_ons(self) -> None:
        addons_gateway.apply(self._kubeconfig, addons_prometheus_pod.manifests(PROMETHEUS_PORT))
        addons_gateway.apply_crds(self._kubeconfig)
        addons_gateway.install(self._kubeconfig, addons_gateway.values(f"envoyproxy/gateway:{ENVOY_GATEWAY.version}"))
        addons_gateway.apply(self._kubeconfig, addons_gateway.objects(None, gateway_service()))
        until("the gateway to be programmed", self._programmed, timeout=300, interval=2)

    def _programmed(self) -> bool:
        namespace, name = GATEWAY
        path = '-o=jsonpath={.status.conditions[?(@.type=="Programmed")].status}'
        return addons_gateway.kubectl(self._kubeconfig, "-n", namespace, "get", "gateway", name, path) == "True"

    def _delete(self) -> None:
        self._kind(delete_command(self._kubeconfig))
        shutil.rmtree(self._run, ignore_errors=True)

    def _kind(self, command: list[str | Path], stdin: str | None = None) -> str:
        return output(command, stdin=stdin, env=provider_environment(engine.engine()), timeout=900)

    def _info(self) -> ClusterInfo:
        return ClusterInfo(
            kubeconfig=self._kubeconfig,
            kubectl=KUBERNETES.binary("kubectl"),
            helm=HELM.binary("helm"),
            gateway=GATEWAY,
            gateway_url=f"http://127.0.0.1:{GATEWAY_PORT}",
            prometheus_url=addons_prometheus_pod.URL,
            prometheus_local_url=f"http://127.0.0.1:{PROMETHEUS_PORT}",
        )
