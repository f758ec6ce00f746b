"""What the cluster has to know about the add-ons that run beside it on the host: who they are and where they answer."""

from __future__ import annotations

from typing import Any

from cluster.settings import DNS_ADDRESS, NODE_ADDRESS

Manifest = dict[str, Any]


def endpoint(name: str, ports: list[Manifest], cluster_address: str | None = None) -> list[Manifest]:
    """A Service in kube-system without pods, and the EndpointSlice that leads it to the host."""
    metadata = {"name": name, "namespace": "kube-system"}
    spec: Manifest = {"ports": ports}
    if cluster_address is not None:
        spec["clusterIP"] = cluster_address
    slice_ports = [{"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]} for p in ports]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": slice_ports,
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        },
    ]


def port(name: str, number: int, target: int, protocol: str = "TCP") -> Manifest:
    """A port of such a Service."""
    return {"name": name, "port": number, "targetPort": target, "protocol": protocol}


def cluster_role(name: str, rules: list[Manifest]) -> Manifest:
    """A ClusterRole."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def binding(user: str, role: str, namespace: str | None = None) -> Manifest:
    """Give a user a ClusterRole, or with ``namespace`` the Role of that name there."""
    metadata = {"name": f"{user}:{role}".replace(":", "-")} | ({"namespace": namespace} if namespace else {})
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role" if namespace else "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def read(groups: list[str], *resources: str) -> Manifest:
    """A rule that allows reading and watching."""
    return {"apiGroups": groups, "resources": list(resources), "verbs": ["get", "list", "watch"]}


def manifests() -> list[Manifest]:
    """Everything the cluster has to be told before the add-ons on the host work."""
    return [
        # The API server asks kubelets as this user, for logs and exec.
        binding("serinus:kubelet-client", "system:kubelet-api-admin"),
        cluster_role(
            "serinus:coredns", [read([""], "services", "namespaces"), read(["discovery.k8s.io"], "endpointslices")]
        ),
        binding("serinus:coredns", "serinus:coredns"),
        *endpoint("kube-dns", [port("dns", 53, 53, "UDP"), port("dns-tcp", 53, 53)], DNS_ADDRESS),
        cluster_role("serinus:prometheus", [read([""], "pods")]),
        binding("serinus:prometheus", "serinus:prometheus"),
        cluster_role(
            "serinus:metrics-server",
            [read([""], "pods", "nodes"), {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
        ),
        binding("serinus:metrics-server", "serinus:metrics-server"),
        binding("serinus:metrics-server", "system:auth-delegator"),
        binding("serinus:metrics-server", "extension-apiserver-authentication-reader", "kube-system"),
        cluster_role("system:aggregated-metrics-reader", [read(["metrics.k8s.io"], "pods", "nodes")]),
        *endpoint("metrics-server", [port("https", 443, 4443)]),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": "metrics-server", "namespace": "kube-system"},
            },
        },
    ]
