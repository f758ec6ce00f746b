"""Which HTTP answers of somebody else's server are an answer, and which are worth another try."""

from __future__ import annotations

_LATER = frozenset({408, 425, 429})
"""Timed out, too early, too many."""


def lasting(status: int) -> bool:
    """Whether another try would end the same: redirects, which are not followed, and what the server will not take."""
    return 300 <= status < 500 and status not in _LATER
