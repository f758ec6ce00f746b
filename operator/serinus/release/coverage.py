"""Whether Prometheus sees every pod of the candidate: a part of the truth is not evidence."""

from __future__ import annotations

from serinus.release.draft import Draft

GRACE = 30.0
"""Seconds from a weight's beginning in which a pod may not have been scraped yet."""


def unseen(draft: Draft) -> str | None:
    """What is missing, as a sentence; None where every ready pod has series, or nobody knows."""
    scraped = draft.given.evidence.scraped
    if scraped is None:
        return None
    revision = draft.release.revision
    ready, seen = draft.given.observed.state(revision).ready, scraped.get(revision, 0)
    return f"Prometheus has series of {seen} of {ready} ready pods" if seen < ready else None


def overdue(draft: Draft) -> bool:
    """Whether the present weight is served for long enough that every pod must have been scraped."""
    since = draft.release.serving_since
    return since is not None and (draft.now - since).total_seconds() >= GRACE
