"""Where each kind lives in the API."""

from __future__ import annotations

from dataclasses import dataclass

from serinus.api import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True)
class Kind:
    """A namespaced resource."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path; `namespace` None means all namespaces."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(parts)


MODEL_DEPLOYMENT = Kind(GROUP, VERSION, PLURAL, KIND)
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENT = Kind("events.k8s.io", "v1", "events", "Event")
WHO_AM_I = Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview")
POD = Kind("", "v1", "pods", "Pod")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
POD_MONITOR = Kind("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor")

OWNED = (
    Kind("apps", "v1", "controllerrevisions", "ControllerRevision"),
    DEPLOYMENT,
    Kind("", "v1", "services", "Service"),
    Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
)
OPTIONAL = (POD_MONITOR,)
WATCHED = (*OWNED, POD)

BY_KIND = {kind.kind: kind for kind in (*WATCHED, *OPTIONAL, MODEL_DEPLOYMENT, LEASE, CONFIG_MAP)}
