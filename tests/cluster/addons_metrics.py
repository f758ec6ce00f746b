"""metrics-server on the host: CPU and memory for kubectl top and the HPA."""

from __future__ import annotations

from pathlib import Path

from cluster.certs import Authority
from cluster.controlplane import Command
from cluster.gobuild import METRICS_SERVER
from cluster.settings import NODE_ADDRESS


def metrics_server_command(run: Path, pki: Authority, kubeconfig: Path) -> Command:
    """The command line. Ten seconds is the shortest resolution it accepts."""
    return [
        METRICS_SERVER.binary("metrics-server"),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--bind-address={NODE_ADDRESS}",
        "--secure-port=4443",
        f"--cert-dir={run / 'metrics-server'}",
        f"--kubelet-certificate-authority={pki.certificate('ca')}",
        "--kubelet-preferred-address-types=InternalIP",
        "--metric-resolution=10s",
        "--kubelet-request-timeout=5s",
    ]
