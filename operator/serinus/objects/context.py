"""What every builder needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serinus.api import API_VERSION, KIND
from serinus.api.spec import ModelDeploymentSpec
from serinus.objects import names

Object = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Operator-wide defaults of what it creates."""

    runtime_image: str = "serinus-runtime:dev"
    pod_monitors: bool = False
    """PodMonitor exists in this cluster; otherwise pods carry scrape annotations."""


@dataclass(frozen=True)
class Context:
    """One ModelDeployment."""

    namespace: str
    name: str
    uid: str
    spec: ModelDeploymentSpec
    settings: Settings = Settings()

    def metadata(self, name: str, revision: str | None = None) -> Object:
        """Metadata of an owned object: garbage collection follows the owner reference."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": names.labels(self.name, revision),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }
