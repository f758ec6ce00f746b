"""What every step waits for, of whatever kind, once its evidence is there: people, the hour, webhooks."""

from __future__ import annotations

from serinus.api.webhooks import HookTime
from serinus.release.asking import unanswered
from serinus.release.draft import Draft
from serinus.release.gates import unapproved
from serinus.release.inconclusive import conclusive
from serinus.release.permits import held


def may_not_pass(draft: Draft, evidence: str | None) -> bool:
    """Whether the present step waits for its approval, a window, the end of a freeze or a webhook. Says so.

    Its evidence is there when this is asked: a clock of silence that began before is not left running meanwhile.
    """
    conclusive(draft)
    return unapproved(draft, evidence) or held(draft) or unanswered(draft, HookTime.STEP, evidence)
