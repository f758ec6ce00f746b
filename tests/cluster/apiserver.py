"""Only an API server and its etcd: starts in seconds, needs no rights, runs no pods."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

from cluster import identities, packages
from cluster.certs import Authority
from cluster.containerd import remove_folder
from cluster.controlplane import ControlPlane
from cluster.errors import ClusterError
from cluster.gobuild import HELM, KUBERNETES, build
from cluster.kube import Api
from cluster.lock import locked
from cluster.paths import run_folder
from cluster.processes import Processes
from cluster.progress import stage
from cluster.provider import ClusterInfo
from cluster.wait import until

_ADDRESS = "127.0.0.1"
_SERVICE_NETWORK, _SERVICE_ADDRESS = "10.96.0.0/16", "10.96.0.1"
# There is no controller that would make service accounts, and none that would delete a namespace's contents.
_ARGUMENTS = ["--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"]
_NO_PODS = "the apiserver provider runs no pods; use CLUSTER=node or CLUSTER=kind"


def free_ports() -> tuple[int, int, int]:
    """Three ports that nobody uses, the last two of them neighbours."""
    while True:
        with ExitStack() as stack:
            first, second = (stack.enter_context(socket.socket()) for _ in range(2))
            third = stack.enter_context(socket.socket())
            first.bind((_ADDRESS, 0))
            second.bind((_ADDRESS, 0))
            etcd = int(second.getsockname()[1])
            try:
                third.bind((_ADDRESS, etcd + 1))
            except (OSError, OverflowError):
                continue
            return int(first.getsockname()[1]), etcd, etcd + 1


class ApiServer:
    """The provider ``apiserver``. Objects stay as they are written: no controller and no kubelet acts on them."""

    name = "apiserver"
    capabilities = frozenset({"apiserver", "faults"})

    def __init__(self) -> None:
        self._run = run_folder(self.name)
        self._components = Processes(self._run)
        self._pki = Authority(self._run / "pki")

    def unavailable(self) -> str | None:
        """Why it cannot run here."""
        if platform.system() != "Linux":
            return "the apiserver provider needs Linux; use CLUSTER=kind or CLUSTER=existing"
        if shutil.which("etcd") is None and shutil.which("apt-get") is None:
            return "the apiserver provider needs etcd and there is no apt-get here; install etcd"
        if shutil.which("openssl") is None and (os.geteuid() != 0 or shutil.which("apt-get") is None):
            return "the apiserver provider needs openssl; install it"
        return None

    def start(self) -> ClusterInfo:
        """Start etcd and the API server on free ports of the loopback device."""
        if reason := self.unavailable():
            raise ClusterError(reason)
        with locked(self.name):
            if (info := self.running()) is not None:
                return info
            self._clean()
            etcd = self._etcd()
            build(KUBERNETES, HELM)
            self._run.mkdir(parents=True)
            port, etcd_port, _ = free_ports()
            plane = ControlPlane(self._run, self._pki, _ADDRESS, port, etcd, etcd_port, _SERVICE_NETWORK)
            with stage("API server ready"):
                self._components.start("etcd", plane.etcd_command())
                identities.create(self._pki, _ADDRESS, _SERVICE_ADDRESS)
                identities.kubeconfigs(self._pki, plane.server, self._run)
                self._components.start("kube-apiserver", plane.apiserver_command(_ARGUMENTS))
                (self._run / "cluster.json").write_text(json.dumps({"server": plane.server}))
                self._wait()
            return self._info()

    def running(self) -> ClusterInfo | None:
        """The API server if it answers."""
        try:
            ready = all(map(self._components.alive, ("etcd", "kube-apiserver"))) and self._api().ok("/readyz")
        except (OSError, ValueError, KeyError):
            return None
        return self._info() if ready else None

    def stop(self) -> None:
        """Stop both and remove their data."""
        with locked(self.name):
            self._clean()

    def build_image(self, name: str) -> Path:
        """Not possible: nothing would run it."""
        raise ClusterError(f"{name}: {_NO_PODS}")

    def load_image(self, archive: Path) -> None:
        """Not possible: nothing would run it."""
        raise ClusterError(f"{archive}: {_NO_PODS}")

    def status(self) -> list[str]:
        """One line for each component."""
        return self._components.status()

    def logs(self, component: str) -> str:
        """What a component has written."""
        return self._components.logs(component)

    def stop_component(self, name: str) -> None:
        """Kill ``etcd`` or ``kube-apiserver`` with SIGKILL."""
        with locked(self.name):
            self._components.kill(name, keep=True)

    def start_component(self, name: str) -> None:
        """Start it again and wait until the API server is ready."""
        with locked(self.name):
            self._components.restart(name)
            self._wait()

    def set_extended_resource(self, name: str, count: int) -> None:
        """Not possible: there is no node."""
        raise ClusterError(f"{name}={count}: {_NO_PODS}")

    def _clean(self) -> None:
        for name in reversed(self._components.names()):
            self._components.kill(name)
        self._components.kill_strays()
        remove_folder(self._run)

    def _etcd(self) -> Path:
        found = shutil.which("etcd")
        if found is not None:
            return Path(found)
        if os.geteuid() != 0:
            return packages.unpacked("etcd-server", "/usr/bin/etcd")
        packages.install({"etcd-server": packages.NODE["etcd-server"], "openssl": packages.NODE["openssl"]})
        return packages.program("etcd")

    def _wait(self) -> None:
        until("the API server", self._ready, timeout=60)
        until("namespace default", lambda: self._api().ok("/api/v1/namespaces/default"), timeout=30)

    def _ready(self) -> bool:
        self._components.require("kube-apiserver")
        return self._api().ok("/readyz")

    def _api(self) -> Api:
        server = json.loads((self._run / "cluster.json").read_text())["server"]
        return Api(server, self._pki.certificate("ca"), self._pki.certificate("admin"), self._pki.key("admin"))

    def _info(self) -> ClusterInfo:
        return ClusterInfo(
            kubeconfig=self._run / "kubeconfig",
            kubectl=KUBERNETES.binary("kubectl"),
            helm=HELM.binary("helm"),
            audit_log=self._run / "audit.log",
        )
