"""Clusters for the tests and the demo: ``get()`` a provider, ``start()`` it.

Not part of the product: nothing in ``operator/`` imports this package.
"""

from __future__ import annotations

from cluster.detect import get
from cluster.errors import ClusterError
from cluster.provider import CAPABILITIES, ClusterInfo, Provider

__all__ = ["CAPABILITIES", "ClusterError", "ClusterInfo", "Provider", "get"]
