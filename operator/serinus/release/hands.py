"""What people ask for by annotation, acted on once for each new value.

`promote`, `approve`, `abort` and `retry` take any value; `rollback` takes a version, a revision or `previous`.
Whatever follows a `#` only makes the value new, so that the same can be asked for twice. `pause` is not a request but a
state: it holds for as long as the annotation is there.
"""

from __future__ import annotations

from collections.abc import Callable

from serinus.api.status import Phase
from serinus.release.draft import Draft
from serinus.release.revisions import Revision
from serinus.release.steps import STEP_PHASES
from serinus.release.transitions import stop
from serinus.release.who import signed


def heed(draft: Draft) -> None:
    """Acts on what has been asked for since the last decision."""
    # Annotations that a new object brings along, from a backup or from git, were meant for another time.
    born = draft.status.observed_generation < 0
    for verb, action in _ACTIONS.items():
        value = draft.given.asked.get(verb)
        if value is None or value == draft.status.acted.get(verb):
            continue
        release = draft.status.release
        if verb == "retry" and release is not None and release.phase is Phase.ROLLING_BACK:
            # What is rolled back is remembered as failed when that is over: only then can it be tried again.
            continue
        draft.update(acted={**draft.status.acted, verb: value})
        if not born:
            action(draft, value)


def _promote(draft: Draft, value: str) -> None:
    release = draft.status.release
    if release is None or release.phase not in {Phase.STARTING, *STEP_PHASES}:
        text, held = "no release is under way that could be promoted", draft.status.held
        if release is None and held is not None:
            text = f"version {draft.target.version} has not started: {held.message}; promote it once it has"
        draft.note("NothingToPromote", text, warning=True)
        return
    draft.update_release(skips_steps=True)
    draft.note(
        "PromotionAsked",
        signed(f"version {draft.version} is promoted by hand: the steps that are left are skipped", value),
    )


def _approve(draft: Draft, _value: str) -> None:
    release = draft.status.release
    if release is None or release.phase not in STEP_PHASES:
        draft.note("NothingToApprove", "no release waits for approval", warning=True)
        return
    draft.update_release(approved=release.step)
    draft.note("Approved", f"version {draft.version} may go on from {release.weight}% (step {release.step + 1})")


def _abort(draft: Draft, value: str) -> None:
    release = draft.status.release
    if release is None or release.phase is Phase.ROLLING_BACK:
        draft.note("NothingToAbort", "no release is under way", warning=True)
    else:
        stop(draft, "Aborted", signed("somebody aborted the release by hand", value))


def _retry(draft: Draft, _value: str) -> None:
    """The revision that the spec asks for is worth another try."""
    draft.choose(None)
    failed = [name for name in draft.status.failed_revisions if name != draft.declared.name]
    draft.update(failed_revisions=failed)


def _rollback(draft: Draft, value: str) -> None:
    wanted = value.partition("#")[0].strip()
    found = _named(draft, wanted)
    live = draft.status.live
    if found is None:
        known = ", ".join(sorted({each.version for each in draft.given.observed.snapshots.values()}))
        draft.note("RollbackTargetUnknown", f"no kept revision is called {wanted!r}; there are {known}", warning=True)
        return
    if live is not None and found.name == live.revision and draft.status.release is None:
        draft.note("NothingToRollBack", f"version {found.version} is live already", warning=True)
        return
    draft.choose(None if found.name == draft.declared.name else found)
    failed = [name for name in draft.status.failed_revisions if name != found.name]
    draft.update(failed_revisions=failed)
    draft.note("RollbackAsked", f"version {found.version} is to be live, in place of {draft.declared.version}")


def _named(draft: Draft, wanted: str) -> Revision | None:
    previous, snapshots = draft.status.previous, draft.given.observed.snapshots
    if wanted in ("", "previous"):
        return snapshots.get(previous.revision) if previous is not None else None
    if wanted in snapshots:
        return snapshots[wanted]
    # A version may have had several revisions: the one that serves, or served last, is meant.
    for ref in (draft.status.live, previous):
        if ref is not None and ref.version == wanted and ref.revision in snapshots:
            return snapshots[ref.revision]
    return next((each for each in snapshots.values() if each.version == wanted), None)


_ACTIONS: dict[str, Callable[[Draft, str], None]] = {
    "retry": _retry,
    "rollback": _rollback,
    "abort": _abort,
    "promote": _promote,
    "approve": _approve,
}
