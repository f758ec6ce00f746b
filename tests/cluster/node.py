"""A real single-node Kubernetes on this machine, without a container engine."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from pathlib import Path

from cluster import addons_gateway, buildah, images, node_cleanup, packages
from cluster.certs import Authority
from cluster.errors import ClusterError
from cluster.gobuild import HELM, KUBERNETES, NODE_TOOLS, build
from cluster.iptables import foreign_kubernetes
from cluster.kube import Api, condition
from cluster.lock import locked
from cluster.node_images import archives
from cluster.node_start import NodeStart
from cluster.paths import run_folder
from cluster.processes import Processes, marked_folders
from cluster.progress import say, stage
from cluster.provider import CAPABILITIES, ClusterInfo
from cluster.settings import API_SERVER, GATEWAY, NODE_NAME, PROMETHEUS_URL
from cluster.wait import until

_CONTROLLER = f"/apis/apps/v1/namespaces/{addons_gateway.SYSTEM}/deployments/{addons_gateway.CONTROLLER}"


class Node:
    """The provider ``node``."""

    name = "node"
    capabilities = CAPABILITIES

    def __init__(self) -> None:
        self._run = run_folder("node")
        self._components = Processes(self._run)

    def unavailable(self) -> str | None:
        """Why no node can be run here."""
        if platform.system() != "Linux":
            return "the node provider needs Linux; use CLUSTER=kind with Docker, or CLUSTER=existing with KUBECONFIG"
        if os.geteuid() != 0:
            return (
                "the node provider needs root (it makes network devices and mounts); run the same command with sudo -E"
            )
        if packages.missing(packages.NODE) and shutil.which("apt-get") is None:
            files = ", ".join(packages.NODE[name] for name in packages.missing(packages.NODE))
            return f"the node provider installs Debian packages and there is no apt-get here; provide: {files}"
        return None

    def start(self) -> ClusterInfo:
        """Start the node; what a crash left behind is removed first."""
        if reason := self.unavailable():
            raise ClusterError(reason)
        with locked(self.name):
            self._restart_stopped()
            if (info := self.running()) is not None:
                return info
            self._refuse_other()
            packages.install(packages.NODE)
            build(*NODE_TOOLS)
            own_images = archives()
            with stage("node up, everything cached"):
                if node_cleanup.traces(self._run):
                    with stage("remove what an earlier node left behind"):
                        node_cleanup.clean(self._run)
                elif foreign_kubernetes():
                    raise ClusterError(
                        "another Kubernetes runs on this machine (kube-proxy's rules are there); stop it"
                    )
                gateway_url = NodeStart(self._run).run(own_images)
            info = self._info(gateway_url)
            (self._run / "cluster.json").write_text(json.dumps(info.to_json()))
            return info

    def running(self) -> ClusterInfo | None:
        """The cluster, if all components live, the node is ready and the gateway programmed."""
        try:
            gateway_url = json.loads((self._run / "cluster.json").read_text())["gateway_url"]
            healthy = all(map(self._components.alive, self._components.names())) and self._answers()
        except (OSError, ValueError, KeyError):
            return None
        return self._info(gateway_url) if healthy else None

    def stop(self) -> None:
        """Stop the node and remove everything it made; the cache stays."""
        if reason := self.unavailable():
            raise ClusterError(reason)
        with locked(self.name):
            self._refuse_other()
            if node_cleanup.traces(self._run):
                with stage("node down"):
                    node_cleanup.clean(self._run)

    def build_image(self, name: str) -> Path:
        """Build an image with buildah on a base of Debian packages; ``base`` is that base itself."""
        if reason := self.unavailable():
            raise ClusterError(reason)
        with locked("images"):
            if name == "base":
                return buildah.base(buildah.BASES["bookworm"])
            image = images.get(name)
            base = buildah.BASES[image.base]
            return images.archive(image, buildah.builder(base), base.recipe)

    def load_image(self, archive: Path) -> None:
        """Import the images of a docker archive."""
        NodeStart(self._run).containerd.load(archive)

    def logs(self, component: str) -> str:
        """What a component has written since the node started."""
        return self._components.logs(component)

    def status(self) -> list[str]:
        """One line for every component."""
        return self._components.status()

    def stop_component(self, name: str) -> None:
        """Kill a component with SIGKILL and leave it stopped; ``envoy-gateway`` is the one that is a pod."""
        with locked(self.name):
            if name == addons_gateway.CONTROLLER:
                addons_gateway.stop_controller(self._run / "kubeconfig")
            else:
                self._components.kill(name, keep=True)

    def start_component(self, name: str) -> None:
        """Start a stopped component and wait until the cluster is healthy again."""
        with locked(self.name):
            self._start_component(name)

    def set_extended_resource(self, name: str, count: int) -> None:
        """Give the node a resource; returns when the scheduler can see it."""
        path, kind = f"/api/v1/nodes/{NODE_NAME}", "application/merge-patch+json"
        patch = {"status": {"capacity": {name: str(count)}, "allocatable": {name: str(count)}}}
        status, text = self._api().request("PATCH", f"{path}/status", patch, kind)
        if status != 200:
            raise ClusterError(f"could not set {name} on the node: {text[:500]}")

        def allocatable() -> bool:
            node = self._api().get(path)
            return bool(node.get("status", {}).get("allocatable", {}).get(name) == str(count))

        until(f"{name}={count} on the node", allocatable, timeout=30)

    def _refuse_other(self) -> None:
        """A machine has room for one node; one that another cache's run folder belongs to is not ours to remove."""
        for folder in marked_folders() - {self._run}:
            if folder.name == self.name:
                there = folder.parent.parent
                raise ClusterError(f"a node runs from the cache {there}; stop it: SERINUS_CACHE={there} cluster down")

    def _start_component(self, name: str) -> None:
        if name == addons_gateway.CONTROLLER:
            addons_gateway.start_controller(self._run / "kubeconfig")
        else:
            self._components.restart(name)
            NodeStart(self._run).wait_component(name)

    def _restart_stopped(self) -> None:
        for name in self._components.names():
            record = self._components.read(name)
            if record is not None and record.stopped_on_purpose and not self._components.alive(name):
                say(f"{name} was stopped on purpose; starting it")
                self._start_component(name)
        with contextlib.suppress(OSError):
            if self._api().get(_CONTROLLER).get("spec", {}).get("replicas") == 0:
                say(f"{addons_gateway.CONTROLLER} was stopped on purpose; starting it")
                self._start_component(addons_gateway.CONTROLLER)

    def _api(self) -> Api:
        pki = Authority(self._run / "pki")
        return Api(API_SERVER, pki.certificate("ca"), pki.certificate("admin"), pki.key("admin"))

    def _answers(self) -> bool:
        namespace, name = GATEWAY
        gateway = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways/{name}"
        api = self._api()
        return (
            condition(api.get(f"/api/v1/nodes/{NODE_NAME}"), "Ready")
            and condition(api.get(gateway), "Programmed")
            and bool(api.get(_CONTROLLER).get("status", {}).get("readyReplicas"))
        )

    def _info(self, gateway_url: str) -> ClusterInfo:
        return ClusterInfo(
            kubeconfig=self._run / "kubeconfig",
            kubectl=KUBERNETES.binary("kubectl"),
            helm=HELM.binary("helm"),
            gateway=GATEWAY,
            gateway_url=gateway_url,
            prometheus_url=PROMETHEUS_URL,
            prometheus_local_url=PROMETHEUS_URL,
            audit_log=self._run / "audit.log",
        )
