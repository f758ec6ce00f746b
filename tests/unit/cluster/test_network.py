"""Only the node's own rules and networks are touched."""

from __future__ import annotations

import json
from pathlib import Path

from cluster import iptables, network

SAVED = """# Generated
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABC - [0:0]
:SERINUS-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -j SERINUS-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-ABC
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
"""


def test_cleaning_names_our_chains_and_the_jumps_to_them_only() -> None:
    lines = iptables.cleaning(SAVED).splitlines()
    assert lines[0] == "*nat"
    assert lines[-1] == "COMMIT"
    assert '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES' in lines
    assert "-D POSTROUTING -j SERINUS-POSTROUTING" in lines
    assert "-X KUBE-SVC-ABC" in lines
    assert "DOCKER" not in "".join(lines)
    assert "*raw" not in lines
    # All chains are emptied before the first is removed, since they refer to each other.
    emptied = [lines.index(f"-F {name}") for name in ("KUBE-SERVICES", "KUBE-SVC-ABC")]
    assert max(emptied) < lines.index("-X KUBE-SERVICES")


def test_nothing_to_clean() -> None:
    assert iptables.cleaning("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n") == ""


def test_cleaning_undoes_the_rules() -> None:
    script = iptables.cleaning(iptables.rules())
    for table in ("*nat", "*filter"):
        assert table in script
    assert "-X SERINUS-FORWARD" in script


def test_overlap_with_a_route_of_the_machine_is_found() -> None:
    assert network.overlapping(["default", "192.168.0.0/24", "10.0.0.0/8"]) == "10.0.0.0/8"
    assert network.overlapping(["default", "192.168.0.0/24", "172.17.0.0/16"]) is None


def test_pod_network_has_no_bridge(tmp_path: Path) -> None:
    config = json.loads(network.cni_config(tmp_path))
    assert [plugin["type"] for plugin in config["plugins"]] == ["ptp", "portmap"]
    assert config["plugins"][0]["ipam"]["dataDir"].startswith(str(tmp_path))
