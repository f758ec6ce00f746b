"""What people are to be told of a release: kept in status until it is delivered or given up.

A message enters the status in the same decision as what it tells of. An errand takes it away, and it leaves the status
when the receiver has taken it: an operator that is killed in between sends it once more, with the same id. Attempts
are bounded and wait longer each time; no phase ever waits for a message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from serinus.api.notifications import Happening, Notification
from serinus.api.status import Message
from serinus.release.draft import Draft
from serinus.release.errands import Errand
from serinus.release.observed import Note
from serinus.release.retries import MESSAGE, too_early

MOST = 20
"""Messages of one ModelDeployment that wait at a time."""
LIMIT = 20.0
"""Seconds that one attempt may take."""
TEXT = 1000
_OF: Mapping[str, Happening] = {
    "ReleaseStarted": Happening.STARTED,
    "ReturningToPrevious": Happening.STARTED,
    "StepPassed": Happening.STEP,
    "WeightChanged": Happening.STEP,
    "WaitingForApproval": Happening.APPROVAL_NEEDED,
    "Promoted": Happening.PROMOTED,
    "RollingBack": Happening.ROLLED_BACK,
    "ReleaseFailed": Happening.FAILED,
    "EvidenceMissing": Happening.EVIDENCE_MISSING,
    "EvidencePartial": Happening.EVIDENCE_MISSING,
    "Inconclusive": Happening.EVIDENCE_MISSING,
}
"""What an event is for people."""
_ONCE = frozenset({Happening.APPROVAL_NEEDED, Happening.EVIDENCE_MISSING})
"""What may begin and end many times in one step, and is told once."""


@dataclass(frozen=True)
class Delivery:
    """An errand: hand one message to one receiver."""

    message: Message
    to: Notification


@dataclass(frozen=True)
class Receipt:
    """What came of it."""

    problem: str = ""
    """Empty where it was taken."""
    final: bool = False
    """Another attempt would end the same."""


def post(draft: Draft) -> None:
    """Adds what this decision tells of, and looks after what waits."""
    receivers = {address(each): each for each in (*draft.given.notifications, *draft.spec.release.notifications)}
    if not receivers and not draft.status.outbox:
        return
    waiting = [*draft.status.outbox, *_fresh(draft, receivers)]
    while len(waiting) > MOST:
        _give_up(draft, waiting.pop(0), f"more than {MOST} messages wait")
    kept = [after for each in waiting if (after := _attempt(draft, each, receivers.get(each.to))) is not None]
    if kept != draft.status.outbox:
        draft.update(outbox=kept)


def address(to: Notification) -> str:
    """A short name of a receiver that does not change with its template or events, and gives no address away."""
    text = f"{to.type} {to.receiver or ''} {to.url or ''}"
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _fresh(draft: Draft, receivers: Mapping[str, Notification]) -> list[Message]:
    told: dict[Happening, list[Note]] = {}
    for note in draft.notes:
        happening = _OF.get(note.reason)
        # A spec that changed in mid-release rolls nothing back that anybody would miss.
        if happening is None or (note.reason == "RollingBack" and note.type != "Warning"):
            continue
        told.setdefault(happening, []).append(note)
    fresh = []
    for happening, notes in told.items():
        if _told_before(draft, happening):
            continue
        for name, to in receivers.items():
            if happening in to.events:
                draft.update(messages=draft.status.messages + 1)
                fresh.append(_message(draft, happening, notes, name))
    return fresh


def _told_before(draft: Draft, happening: Happening) -> bool:
    release = draft.status.release
    if happening not in _ONCE or release is None:
        return False
    name = f"{happening}/{release.step}"
    if name in release.told:
        return True
    draft.update_release(told=[*release.told, name][-40:])
    return False


def _message(draft: Draft, happening: Happening, notes: Sequence[Note], to: str) -> Message:
    release, last = draft.status.release, draft.status.last_release
    ref = draft.status.candidate
    ended = release is None and last is not None
    return Message(
        id=draft.status.messages,
        to=to,
        event=happening,
        at=draft.now,
        version=last.version if ended and last else ref.version if ref else draft.target.version,
        revision=last.revision if ended and last else ref.revision if ref else draft.target.name,
        weight=release.weight if release else 100 if happening is Happening.PROMOTED else 0,
        step=release.step if release else 0,
        reason=(release and release.reason) or (last.reason if ended and last else notes[0].reason),
        message="; ".join(note.message for note in notes)[:TEXT],
    )


def _attempt(draft: Draft, message: Message, to: Notification | None) -> Message | None:
    """The message as it waits on; None where it is delivered or given up."""
    if to is None:
        return None
    if too_early(draft, message.next_at):
        return message
    result = draft.ask(Errand(f"notify/{message.id}/{message.attempts}", Delivery(message, to), LIMIT))
    if result is None:
        return message
    receipt = result.value if isinstance(result.value, Receipt) else Receipt(result.problem or "no answer")
    if not receipt.problem:
        return None
    attempts = message.attempts + 1
    if receipt.final or MESSAGE.spent(attempts):
        _give_up(draft, message, receipt.problem)
        return None
    pause = MESSAGE.pause(attempts)
    draft.wake.append(pause)
    return message.model_copy(update={"attempts": attempts, "next_at": draft.now + timedelta(seconds=pause)})


def _give_up(draft: Draft, message: Message, problem: str) -> None:
    text = f"{message.event} of version {message.version} was not delivered: {problem}"
    draft.note("NotificationFailed", text, warning=True)


def fields(namespace: str, name: str, message: Message) -> dict[str, str | int]:
    """What templates and webhooks know of a message."""
    return {
        "id": f"{namespace}/{name}/{message.id}",
        "event": str(message.event),
        "namespace": namespace,
        "name": name,
        "version": message.version,
        "revision": message.revision,
        "weight": message.weight,
        "step": message.step,
        "reason": message.reason or "",
        "message": message.message,
        "at": message.at.isoformat(timespec="seconds"),
    }
