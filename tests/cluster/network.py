"""The node's address, routing and the kernel settings that the kubelet changes."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from pathlib import Path

from cluster import iptables
from cluster.commands import output
from cluster.errors import ClusterError
from cluster.settings import (
    CNI_NETWORK,
    NODE_ADDRESS,
    NODE_DEVICE,
    POD_NETWORK,
    SERVICE_NETWORK,
)

_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
)
_SYSCTL = Path("/proc/sys")


def cni_config(folder: Path) -> str:
    """The pods' network: a routed pair of devices each, so that no traffic bypasses the packet filter on a bridge."""
    address = str(next(ipaddress.IPv4Network(POD_NETWORK).hosts()))
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_NETWORK, "gateway": address}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "addresses"),
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": plugins}, indent=2)


def overlapping(routes: list[str]) -> str | None:
    """The first of a machine's routes that covers one of the node's networks, if any does."""
    own = [ipaddress.IPv4Network(network) for network in (POD_NETWORK, SERVICE_NETWORK, f"{NODE_ADDRESS}/32")]
    for route in routes:
        if route != "default" and any(ipaddress.IPv4Network(route).overlaps(network) for network in own):
            return route
    return None


def up(folder: Path) -> None:
    """Give the machine the node's address, let it forward, and remember the kernel settings as they were."""
    routes = json.loads(output(["ip", "-4", "-json", "route", "show", "table", "all"]) or "[]")
    if taken := overlapping([route["dst"] for route in routes]):
        raise ClusterError(f"this machine's route to {taken} covers a network of the node; change cluster/settings.py")
    before = {name: (_SYSCTL / name).read_text().strip() for name in _SETTINGS}
    (folder / "sysctl.json").write_text(json.dumps(before))
    output(["ip", "link", "add", NODE_DEVICE, "type", "bridge"])
    output(["ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", NODE_DEVICE])
    output(["ip", "link", "set", NODE_DEVICE, "up"])
    (_SYSCTL / "net/ipv4/ip_forward").write_text("1")
    iptables.install()


def down(folder: Path) -> None:
    """Take away devices, rules and connections of the node and put the kernel settings back."""
    pods = ipaddress.IPv4Network(POD_NETWORK)
    for route in json.loads(output(["ip", "-4", "-json", "route", "show"]) or "[]"):
        if route["dst"] != "default" and ipaddress.IPv4Network(route["dst"]).subnet_of(pods):
            output(["ip", "link", "delete", route["dev"]], check=False)
    output(["ip", "link", "delete", NODE_DEVICE], check=False)
    iptables.clean()
    for network in (POD_NETWORK, SERVICE_NETWORK):
        output(["conntrack", "--delete", "--orig-dst", network], check=False)
    with contextlib.suppress(FileNotFoundError, ValueError):
        for name, value in json.loads((folder / "sysctl.json").read_text()).items():
            if name in _SETTINGS and (_SYSCTL / name).read_text().strip() != value:
                (_SYSCTL / name).write_text(value)
