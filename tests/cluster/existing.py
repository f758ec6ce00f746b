"""A cluster that somebody else runs. It is used only when asked for by name, and nothing in it is stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import ClusterError
from cluster.gobuild import HELM, KUBERNETES, Tool, build
from cluster.provider import ClusterInfo


class Existing:
    """The provider ``existing``: what its environment says, and no more."""

    name = "existing"

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    @property
    def capabilities(self) -> frozenset[str]:
        """Pods always; gateway, prometheus and metrics-server where a variable says that they are there."""
        found = {"apiserver", "pods"}
        if self._get("GATEWAY") and self._get("GATEWAY_URL"):
            found.add("gateway")
        if self._get("PROMETHEUS_URL"):
            found.add("prometheus")
        if self._get("METRICS_SERVER"):
            found.add("metrics-server")
        return frozenset(found)

    def unavailable(self) -> str | None:
        """Why it cannot be used."""
        kubeconfig = self._get("KUBECONFIG")
        if not kubeconfig:
            return "CLUSTER=existing needs KUBECONFIG: the file that says how to reach the cluster to use"
        if not Path(kubeconfig).is_file():
            return f"KUBECONFIG={kubeconfig} is no file"
        if (gateway := self._get("GATEWAY")) and gateway.count("/") != 1:
            return f"GATEWAY={gateway} should be the Gateway's namespace/name"
        return None

    def start(self) -> ClusterInfo:
        """Start nothing; say how to reach the cluster."""
        if reason := self.unavailable():
            raise ClusterError(reason)
        namespace, _, name = self._get("GATEWAY").partition("/")
        prometheus = self._get("PROMETHEUS_URL")
        audit_log = self._get("AUDIT_LOG")
        return ClusterInfo(
            kubeconfig=Path(self._get("KUBECONFIG")),
            kubectl=self._tool("kubectl", KUBERNETES),
            helm=self._tool("helm", HELM),
            gateway=(namespace, name),
            gateway_url=self._get("GATEWAY_URL"),
            prometheus_url=prometheus,
            prometheus_local_url=self._get("PROMETHEUS_LOCAL_URL") or prometheus,
            audit_log=Path(audit_log) if audit_log else None,
        )

    def running(self) -> ClusterInfo | None:
        """The cluster, taken to run when it is described."""
        return None if self.unavailable() else self.start()

    def stop(self) -> None:
        """Refuse."""
        raise ClusterError("CLUSTER=existing is somebody's cluster and is not stopped here")

    def build_image(self, name: str) -> Path:
        """Refuse: how images get into that cluster is its owner's business."""
        raise ClusterError(f"CLUSTER=existing: build image {name} and push it where the cluster can pull it")

    def load_image(self, archive: Path) -> None:
        """Refuse: how images get into that cluster is its owner's business."""
        raise ClusterError(f"CLUSTER=existing: push the image of {archive.name} where the cluster can pull it")

    def status(self) -> list[str]:
        """What the environment says about it."""
        return [f"KUBECONFIG={self._get('KUBECONFIG')}", f"capabilities: {', '.join(sorted(self.capabilities))}"]

    def logs(self, component: str) -> str:
        """Refuse."""
        raise ClusterError(f"CLUSTER=existing: the logs of {component} are not known here")

    def stop_component(self, name: str) -> None:
        """Refuse."""
        raise ClusterError(f"CLUSTER=existing: {name} is not stopped here")

    def start_component(self, name: str) -> None:
        """Refuse."""
        raise ClusterError(f"CLUSTER=existing: {name} is not started here")

    def set_extended_resource(self, name: str, count: int) -> None:
        """Refuse."""
        raise ClusterError(f"CLUSTER=existing: its nodes are not changed here ({name}={count})")

    def _get(self, name: str) -> str:
        return self._environment.get(name, "")

    def _tool(self, name: str, tool: Tool) -> Path:
        """The user's own program where there is one, else the pinned one."""
        found = self._get(name.upper()) or shutil.which(name)
        if found:
            return Path(found)
        build(tool)
        return tool.binary(name)
