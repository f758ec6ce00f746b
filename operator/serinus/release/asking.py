"""Webhooks that are asked before a release goes on: `Before` and `Step`."""

from __future__ import annotations

from datetime import timedelta

from serinus.api.webhooks import FailurePolicy, HookCall, HookState, HookTime, Webhook
from serinus.release.draft import Draft
from serinus.release.hooks import HookAnswer, Said, answer_of, errand
from serinus.release.retries import HOOK, too_early
from serinus.release.transitions import stop

REASON = "WebhookRefused"
AGAIN = 10.0
"""Seconds after which one that said hold is asked again, where it does not say itself."""
SHORTEST, LONGEST = 2.0, 300.0
_DONE = (HookState.ALLOWED, HookState.IGNORED, HookState.REFUSED)


def unanswered(draft: Draft, when: HookTime, evidence: str | None = None) -> bool:
    """Whether the release waits for a webhook, or was just ended by one. Asks those that are to be asked."""
    hooks = [hook for hook in draft.spec.release.webhooks if when in hook.when]
    release = draft.release
    if not hooks or release.skips_steps:
        return False
    known = {call.name: call for call in release.webhooks if (call.when, call.step) == (when, release.step)}
    calls = []
    for hook in hooks:
        said = evidence or release.evidence
        first = HookCall(name=hook.name, when=when, step=release.step, at=draft.now, evidence=said)
        calls.append(_asked(draft, hook, known.get(hook.name, first)))
    draft.update_release(webhooks=calls)
    for call in calls:
        if call.state is HookState.REFUSED:
            stop(draft, REASON, f"webhook {call.name} ({when}): {call.message}")
            return True
    waiting = [f"{call.name}: {call.message or 'asked'}" for call in calls if call.state is HookState.ASKED]
    if waiting:
        draft.say("WaitingForWebhook", f"holding at {release.weight}%: waiting for webhook {'; '.join(waiting)}")
    return bool(waiting)


def _asked(draft: Draft, hook: Webhook, call: HookCall) -> HookCall:
    if call.state in _DONE:
        return call
    if too_early(draft, call.retry_at):
        return call
    release = draft.release
    key = f"{release.revision}/{release.started_at.timestamp():.0f}/{call.when}/{call.step}/{hook.name}/{call.asked}"
    result = draft.ask(errand(hook, key, call.attempt, _facts(draft, call)))
    return call if result is None else _answered(draft, hook, call, answer_of(result))


def _facts(draft: Draft, call: HookCall) -> dict[str, object]:
    """What stays the same for as long as the question does."""
    release, live, candidate = draft.release, draft.status.live, draft.status.candidate
    return {
        "when": call.when,
        "deployment": draft.given.name,
        "revision": release.revision,
        "version": draft.version,
        "digest": candidate.digest if candidate else None,
        "liveVersion": live.version if live else None,
        "step": call.step,
        "stepKind": str(draft.step.kind) if draft.step and call.when is HookTime.STEP else None,
        "weight": release.weight,
        "evidence": call.evidence,
        "startedAt": release.started_at,
        "askedAt": call.at,
        "asked": call.asked,
    }


def _answered(draft: Draft, hook: Webhook, call: HookCall, answer: HookAnswer) -> HookCall:
    if answer.said is Said.GO:
        draft.note("WebhookAllowed", f"webhook {hook.name} ({call.when}) lets version {draft.version} go on")
        return call.model_copy(update={"state": HookState.ALLOWED, "message": answer.message or None, "retry_at": None})
    if answer.said is Said.HOLD:
        return _later(draft, call, answer.message or "hold", _again(answer), asked=call.asked + 1, attempt=1)
    message = f"refused: {answer.message}" if answer.said is Said.NO else f"no answer: {answer.message}"
    policy = hook.failure_policy
    if answer.said is Said.NOTHING and (not HOOK.spent(call.attempt) or policy is FailurePolicy.HOLD):
        return _later(draft, call, message, HOOK.pause(call.attempt), asked=call.asked, attempt=call.attempt + 1)
    if policy is FailurePolicy.HOLD:
        return _later(draft, call, message, LONGEST, asked=call.asked + 1, attempt=1)
    if policy is FailurePolicy.IGNORE:
        draft.note("WebhookIgnored", f"webhook {hook.name} ({call.when}): {message}; ignored as declared", warning=True)
        return call.model_copy(update={"state": HookState.IGNORED, "message": message, "retry_at": None})
    return call.model_copy(update={"state": HookState.REFUSED, "message": message, "retry_at": None})


def _again(answer: HookAnswer) -> float:
    return min(max(AGAIN if answer.again is None else answer.again, SHORTEST), LONGEST)


def _later(draft: Draft, call: HookCall, message: str, seconds: float, *, asked: int, attempt: int) -> HookCall:
    draft.wake.append(seconds)
    update = {"message": message, "retry_at": draft.now + timedelta(seconds=seconds)}
    return call.model_copy(update={**update, "asked": asked, "attempt": attempt})
