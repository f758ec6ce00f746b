"""What a provider of clusters is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

CAPABILITIES = frozenset({"apiserver", "pods", "gateway", "prometheus", "metrics-server", "faults"})


@dataclass(frozen=True)
class ClusterInfo:
    """How to reach a running cluster. What a provider does not have is an empty text; its capabilities say so too."""

    kubeconfig: Path
    kubectl: Path
    helm: Path
    # Namespace and name of the Gateway that routes may attach to.
    gateway: tuple[str, str] = ("", "")
    # Reachable from the host: http://address:port.
    gateway_url: str = ""
    # Reachable from pods.
    prometheus_url: str = ""
    # Reachable from the host.
    prometheus_local_url: str = ""
    # The API server's log of writes, one JSON object a line.
    audit_log: Path | None = None

    def environment(self) -> dict[str, str]:
        """The same as variables, as CLUSTER=existing reads them."""
        values = {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECTL": str(self.kubectl),
            "HELM": str(self.helm),
            "GATEWAY": "/".join(self.gateway) if self.gateway[1] else "",
            "GATEWAY_URL": self.gateway_url,
            "PROMETHEUS_URL": self.prometheus_url,
            "PROMETHEUS_LOCAL_URL": self.prometheus_local_url,
            "AUDIT_LOG": str(self.audit_log or ""),
        }
        return {key: value for key, value in values.items() if value}

    def to_json(self) -> dict[str, object]:
        """The same as plain JSON values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: str(value) if isinstance(value, Path) else value for key, value in plain.items()}


class Provider(Protocol):
    """Something that has, or makes, a cluster for the tests and the demo."""

    @property
    def name(self) -> str:
        """What CLUSTER calls it."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Which of CAPABILITIES its clusters have."""

    def unavailable(self) -> str | None:
        """Why it cannot run here and what to do about it; None when it can."""

    def start(self) -> ClusterInfo:
        """Make sure that the cluster runs; returns at once when it is healthy."""

    def running(self) -> ClusterInfo | None:
        """The cluster if it runs and is healthy, without starting anything."""

    def stop(self) -> None:
        """Take the cluster down and leave nothing behind."""

    def build_image(self, name: str) -> Path:
        """The docker archive of one of the project's images (runtime, operator), built when the cache has none."""

    def load_image(self, archive: Path) -> None:
        """Make the images of a docker archive available to pods."""

    def status(self) -> list[str]:
        """A line for each component of the cluster."""

    def logs(self, component: str) -> str:
        """What a component has written."""

    def stop_component(self, name: str) -> None:
        """Kill a component as a fault (SIGKILL); needs the capability ``faults``."""

    def start_component(self, name: str) -> None:
        """Start a component that was stopped, and wait until it works."""

    def set_extended_resource(self, name: str, count: int) -> None:
        """Let the node have ``count`` of a resource such as nvidia.com/gpu, as the scheduler sees it."""
