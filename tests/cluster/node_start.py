"""Bringing the node up, in the order that leaves the least waiting."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cluster import addons_gateway, addons_host, cgroups, identities, network, packages
from cluster.addons_dns import coredns_command
from cluster.addons_metrics import metrics_server_command
from cluster.addons_prometheus import DISCOVERY_ENVIRONMENT, discovery_command, prometheus_command
from cluster.certs import Authority
from cluster.containerd import Containerd
from cluster.controlplane import ControlPlane
from cluster.kube import Api, condition
from cluster.kubelet import kubelet_command, proxy_command
from cluster.node_images import envoy_image, gateway_image
from cluster.processes import Processes
from cluster.progress import stage
from cluster.settings import (
    API_SERVER,
    ETCD_PORT,
    GATEWAY,
    NODE_ADDRESS,
    NODE_NAME,
    PROMETHEUS_URL,
    SERVICE_NETWORK,
)
from cluster.wait import until


def answers(url: str) -> bool:
    """Whether a GET of ``url`` is answered with 200."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)


class NodeStart:
    """One start of the node in a run folder."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._components = Processes(run)
        self._pki = Authority(run / "pki")
        self.containerd = Containerd(run)

    def run(self, images: list[Path]) -> str:
        """Start everything; returns the gateway's address once it answers."""
        self._run.mkdir(parents=True)
        network.up(self._run)
        cgroups.create()
        with ThreadPoolExecutor() as pool:
            runtime = pool.submit(self._start_runtime, images, pool)
            with stage("certificates"):
                identities.create_node(self._pki)
                kubeconfigs = identities.kubeconfigs(self._pki, API_SERVER, self._run)
            with stage("API server ready"):
                self._start_apiserver()
            crds = pool.submit(self._crds, kubeconfigs["admin"])
            self._start_rest(kubeconfigs, runtime)
            with stage("add-ons' manifests"):
                addons_gateway.apply(kubeconfigs["admin"], addons_host.manifests())
            # It ends at once when it may not read yet what the manifests allow it to.
            metrics_server = metrics_server_command(self._run, self._pki, kubeconfigs["metrics-server"])
            self._components.start("metrics-server", metrics_server)
            gateway = pool.submit(self._gateway, kubeconfigs["admin"], crds)
            with stage("node ready"):
                until("the node to be ready", lambda: self._condition(f"/api/v1/nodes/{NODE_NAME}", "Ready"), 60)
            for name in ("prometheus", "coredns", "metrics-server"):
                with stage(f"{name} ready"):
                    self.wait_component(name)
            return gateway.result()

    def wait_component(self, name: str) -> None:
        """Wait until a component that was started does its work."""
        conditions = {
            "etcd": lambda: self._api().ok("/readyz"),
            "kube-apiserver": lambda: self._api().ok("/readyz"),
            "kubelet": lambda: answers(f"http://{NODE_ADDRESS}:10248/healthz"),
            "kube-proxy": lambda: answers(f"http://{NODE_ADDRESS}:10256/healthz"),
            "prometheus": lambda: answers(f"{PROMETHEUS_URL}/-/ready"),
            "coredns": lambda: answers(f"http://{NODE_ADDRESS}:8181/ready"),
            "metrics-server": lambda: bool(self._api().get("/apis/metrics.k8s.io/v1beta1/nodes").get("items")),
        }
        if name == "containerd":
            self.containerd.wait()
        elif name in conditions:
            until(f"{name} to be ready", lambda: self._works(name, conditions[name]), timeout=90, interval=0.2)

    def _works(self, name: str, condition: Callable[[], bool]) -> bool:
        self._components.require(name)
        return condition()

    def _start_runtime(self, images: list[Path], pool: ThreadPoolExecutor) -> None:
        with stage("containerd"):
            self._components.start("containerd", self.containerd.configure())
            self.containerd.wait()
        for archive in images:
            pool.submit(self._load, archive)

    def _load(self, archive: Path) -> None:
        with stage(f"import {archive.name}"):
            self.containerd.load(archive)

    def _control_plane(self) -> ControlPlane:
        etcd = packages.program("etcd")
        return ControlPlane(self._run, self._pki, NODE_ADDRESS, 6443, etcd, ETCD_PORT, SERVICE_NETWORK)

    def _start_apiserver(self) -> None:
        plane = self._control_plane()
        self._components.start("etcd", plane.etcd_command())
        self._components.start("kube-apiserver", plane.apiserver_command(plane.node_arguments()))
        self.wait_component("kube-apiserver")
        until("namespace kube-system", lambda: self._api().ok("/api/v1/namespaces/kube-system"), timeout=30)

    def _start_rest(self, kubeconfigs: dict[str, Path], runtime: Future[None]) -> None:
        plane, run = self._control_plane(), self._run
        start = self._components.start
        start("kube-controller-manager", plane.controller_manager_command(kubeconfigs["controller-manager"]))
        start("kube-scheduler", plane.scheduler_command(kubeconfigs["scheduler"]))
        start("kube-proxy", proxy_command(run, kubeconfigs["proxy"]))
        start("coredns", coredns_command(run, kubeconfigs["coredns"]))
        start("discovery", discovery_command(run, self._pki), DISCOVERY_ENVIRONMENT)
        start("prometheus", prometheus_command(run, PROMETHEUS_URL))
        runtime.result()
        start("kubelet", kubelet_command(run, self._pki, self.containerd.socket, kubeconfigs["kubelet"]))

    def _crds(self, kubeconfig: Path) -> None:
        with stage("CRDs of the gateway"):
            addons_gateway.apply_crds(kubeconfig)

    def _gateway(self, kubeconfig: Path, crds: Future[None]) -> str:
        crds.result()
        with stage("helm install of Envoy Gateway"):
            addons_gateway.install(kubeconfig, addons_gateway.values(gateway_image()))
        with stage("gateway programmed"):
            addons_gateway.apply(kubeconfig, addons_gateway.objects(envoy_image(), {"type": "ClusterIP"}))
            namespace, name = GATEWAY
            path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/gateways/{name}"
            until("the gateway to be programmed", lambda: self._condition(path, "Programmed"), timeout=120)
        address = self._api().get(path)["status"]["addresses"][0]["value"]
        with stage("gateway answers"):
            until("the gateway to answer", lambda: _any_answer(f"http://{address}:80"), timeout=60)
        return f"http://{address}:80"

    def _api(self) -> Api:
        return Api(API_SERVER, self._pki.certificate("ca"), self._pki.certificate("admin"), self._pki.key("admin"))

    def _condition(self, path: str, kind: str) -> bool:
        return condition(self._api().get(path), kind)


def _any_answer(url: str) -> bool:
    """Whether anything answers over HTTP; a gateway without routes says 404."""
    try:
        return answers(url)
    except urllib.error.HTTPError:
        return True
