"""The one exception of this package."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """Something a person has to know or do before a cluster can run here; the message says what."""
