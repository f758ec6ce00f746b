"""What a step that brought evidence still waits for: people, the hour, and whoever is asked by webhook."""

from __future__ import annotations

from serinus.api.webhooks import HookTime
from serinus.release.asking import unanswered
from serinus.release.draft import Draft
from serinus.release.gates import unapproved
from serinus.release.permits import held


def may_not_pass(draft: Draft, evidence: str) -> bool:
    """Whether the present step waits for its approval, a window, the end of a freeze or a webhook. Says so."""
    return unapproved(draft, evidence) or held(draft) or unanswered(draft, HookTime.STEP)
