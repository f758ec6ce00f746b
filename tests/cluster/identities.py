"""Who is who in a control plane: the certificates and kubeconfigs of every component."""

from __future__ import annotations

from pathlib import Path

from cluster.certs import Authority, Request, server_names
from cluster.kube import write_kubeconfig
from cluster.settings import KUBERNETES_ADDRESS, NODE_ADDRESS, NODE_NAME

# Kubeconfig's file name -> (user, group).
NODE_USERS = {
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
    "coredns": ("serinus:coredns", ""),
    "prometheus": ("serinus:prometheus", ""),
    "metrics-server": ("serinus:metrics-server", ""),
}
_ADMIN = Request("admin", "serinus:admin", "system:masters")


def create(pki: Authority, address: str, service_address: str) -> None:
    """Certificates for a control plane without nodes."""
    server = Request("apiserver", "kube-apiserver", names=server_names(service_address, address))
    pki.create(["ca"], [server, _ADMIN])


def create_node(pki: Authority) -> None:
    """Certificates for a control plane with a node and add-ons."""
    requests = [
        Request("apiserver", "kube-apiserver", names=server_names(KUBERNETES_ADDRESS, NODE_ADDRESS)),
        Request("kubelet", f"system:node:{NODE_NAME}", "system:nodes", names=[NODE_NAME, NODE_ADDRESS]),
        Request("kubelet-client", "serinus:kubelet-client"),
        Request("front-proxy", "front-proxy", authority="front-proxy-ca"),
        _ADMIN,
        *(Request(f"user-{name}", user, group) for name, (user, group) in NODE_USERS.items()),
    ]
    pki.create(["ca", "front-proxy-ca"], requests)


def kubeconfigs(pki: Authority, server: str, folder: Path) -> dict[str, Path]:
    """Write a kubeconfig for every certificate of a user; the administrator's is called ``admin``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"admin": folder / "kubeconfig"}
    for name in NODE_USERS:
        if pki.certificate(f"user-{name}").exists():
            files[name] = folder / "kubeconfigs" / name
    for name, target in files.items():
        target.parent.mkdir(exist_ok=True)
        file = "admin" if name == "admin" else f"user-{name}"
        write_kubeconfig(target, server, pki.certificate("ca"), pki.certificate(file), pki.key(file))
    return files
