"""Choosing a provider."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from cluster.apiserver import ApiServer
from cluster.errors import ClusterError
from cluster.existing import Existing
from cluster.kind import Kind
from cluster.node import Node
from cluster.provider import Provider

PROVIDERS: Mapping[str, Callable[[], Provider]] = {
    "existing": Existing,
    "kind": Kind,
    "node": Node,
    "apiserver": ApiServer,
}
# An existing cluster is never taken without being asked for; "apiserver" runs no pods.
DETECTED = ("kind", "node")


def get(name: str | None = None) -> Provider:
    """The provider called ``name``, or by the variable CLUSTER, or the first that can run here.

    Raises:
        ClusterError: there is no such provider, or none can run here; the message says why for each.
    """
    wanted = name or os.environ.get("CLUSTER") or None
    if wanted is not None:
        if wanted not in PROVIDERS:
            raise ClusterError(f"CLUSTER={wanted} is unknown; choose one of: {', '.join(PROVIDERS)}")
        return PROVIDERS[wanted]()
    return choose([PROVIDERS[candidate]() for candidate in DETECTED])


def choose(candidates: list[Provider]) -> Provider:
    """The first candidate that can run here."""
    reasons = []
    for candidate in candidates:
        reason = candidate.unavailable()
        if reason is None:
            return candidate
        reasons.append(f"  {candidate.name}: {reason}")
    raise ClusterError("no cluster can be run here:\n" + "\n".join(reasons))
