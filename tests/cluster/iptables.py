"""The node's own packet filter rules, and removing every rule that its Kubernetes made."""

from __future__ import annotations

import re

from cluster.commands import output
from cluster.settings import NODE_ADDRESS, POD_NETWORK

_OURS = re.compile(r"^(KUBE|SERINUS)-")


def rules() -> str:
    """What lets pods reach the outside and each other, in the language of iptables-restore."""
    return "\n".join(
        [
            "*nat",
            ":SERINUS-POSTROUTING - [0:0]",
            f"-A SERINUS-POSTROUTING -s {POD_NETWORK} -d {POD_NETWORK} -j RETURN",
            f"-A SERINUS-POSTROUTING -s {POD_NETWORK} -d {NODE_ADDRESS}/32 -j RETURN",
            f"-A SERINUS-POSTROUTING -s {POD_NETWORK} -j MASQUERADE",
            "-A POSTROUTING -j SERINUS-POSTROUTING",
            "COMMIT",
            "*filter",
            ":SERINUS-FORWARD - [0:0]",
            f"-A SERINUS-FORWARD -s {POD_NETWORK} -j ACCEPT",
            f"-A SERINUS-FORWARD -d {POD_NETWORK} -j ACCEPT",
            "-A FORWARD -j SERINUS-FORWARD",
            "COMMIT",
            "",
        ]
    )


def install() -> None:
    """Add the node's rules to those that are there."""
    output(["iptables-restore", "--noflush"], stdin=rules())


def cleaning(saved: str) -> str:
    """What to feed to iptables-restore --noflush to remove our chains from a table dump of iptables-save.

    Empty when there is nothing of ours. Chains of others, and their rules, are not named in it.
    """
    result: list[str] = []
    table, chains, jumps = "", list[str](), list[str]()
    for line in saved.splitlines():
        words = line.split()
        if line.startswith("*"):
            table, chains, jumps = line, [], []
        elif line.startswith(":") and _OURS.match(words[0][1:]):
            chains.append(words[0][1:])
        elif line.startswith("-A ") and not _OURS.match(words[1]) and _target(words) is not None:
            jumps.append("-D " + line.removeprefix("-A "))
        elif line == "COMMIT" and (chains or jumps):
            result += [table, *(f":{chain} - [0:0]" for chain in chains), *jumps]
            result += [*(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains), "COMMIT"]
    return "\n".join([*result, ""]) if result else ""


def _target(words: list[str]) -> str | None:
    """The chain of ours that a rule jumps to, if it does."""
    for option in ("-j", "-g"):
        if option in words and _OURS.match(words[words.index(option) + 1]):
            return words[words.index(option) + 1]
    return None


def clean() -> None:
    """Remove the rules and chains of this node and its Kubernetes, for IPv4 and IPv6."""
    for family in ("iptables", "ip6tables"):
        saved = output([f"{family}-save"], check=False)
        if script := cleaning(saved):
            output([f"{family}-restore", "--noflush"], stdin=script)


def foreign_kubernetes() -> bool:
    """Whether kube-proxy chains exist that this node cannot have made: another Kubernetes runs on this machine."""
    saved = output(["iptables-save"], check=False)
    return ":KUBE-SERVICES " in saved and ":SERINUS-POSTROUTING " not in saved
