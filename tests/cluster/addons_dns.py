"""CoreDNS on the host, bound to the node's address."""

from __future__ import annotations

from pathlib import Path

from cluster.controlplane import Command
from cluster.gobuild import COREDNS
from cluster.settings import NODE_ADDRESS


def coredns_command(run: Path, kubeconfig: Path) -> Command:
    """Write the Corefile; returns the command line. Other names go to the host's own resolver."""
    (run / "Corefile").write_text(
        f""".:53 {{
    bind {NODE_ADDRESS}
    errors
    health {NODE_ADDRESS}:8080
    ready {NODE_ADDRESS}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} serinus
        pods insecure
        ttl 5
    }}
    forward . /etc/resolv.conf
    cache 5
}}
"""
    )
    return [COREDNS.binary("coredns"), "-conf", run / "Corefile"]
