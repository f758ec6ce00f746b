"""Experimenting: some users are served by the candidate until the business metric says which version is better.

The verdict on the SLO goes on meanwhile (`machine`), and so do the metrics of `analysis`: both roll back as ever.
"""

from __future__ import annotations

from serinus.api.experiment import Experiment, OnSuccess
from serinus.api.shown import ExperimentStatus, Recommendation
from serinus.api.status import Phase
from serinus.release import experiments, measurements
from serinus.release.draft import Draft
from serinus.release.gates import condemned, needed, waits_for_pods, waits_for_rules
from serinus.release.inconclusive import conclusive, hold
from serinus.release.passing import may_not_pass
from serinus.release.permits import held
from serinus.release.transitions import enter, next_step, pass_step, roll_back


def experimenting(draft: Draft) -> None:
    """Starts the experiment once its metric is there, looks, and does what was asked for at the end."""
    step, release = draft.step, draft.release
    experiment = step.experiment if step else None
    if experiment is None:
        next_step(draft)
        return
    known = release.experiment
    if known is None or known.step != release.step:
        known = experiments.begin(experiment, release.step)
        draft.update_release(experiment=known)
    measurements.measure(draft)
    measured = measurements.verdict(draft)
    if measured and condemned(draft, measured):
        return
    if draft.paused and known.recommendation is None and known.since is None:
        conclusive(draft)
        draft.say("Paused", f"held at {release.weight}% before the experiment: remove the annotation pause to go on")
        return
    if known.recommendation is not None:
        _conclude(draft, experiment, known)
        return
    seen = _counters(draft, experiment)
    if isinstance(seen, str):
        reason = "MetricMissing" if draft.given.evidence.available else "EvidenceMissing"
        hold(draft, reason, f"the experiment {'waits' if known.since else 'does not begin'}: {seen}")
        return
    conclusive(draft)
    if known.since is None and not _placed(draft, experiment):
        return
    _look(draft, experiment, known, seen)


def _placed(draft: Draft, experiment: Experiment) -> bool:
    """Whether the users of the experiment are where they belong."""
    release = draft.release
    if release.weight != experiment.share:
        if held(draft) or waits_for_pods(draft, needed(draft, experiment.share), f" for {experiment.share}%"):
            return False
        if waits_for_rules(draft):
            return False
        enter(draft, Phase.EXPERIMENTING, weight=experiment.share, step=release.step)
        draft.tell_weight(experiment.share, release.step)
        return False
    if release.serving_since is None:
        text = f"the gateway has not confirmed {experiment.share}% yet: {draft.route_message}"
        draft.say("WaitingForGateway", text)
        return False
    return True


def _look(
    draft: Draft, experiment: Experiment, known: ExperimentStatus, seen: tuple[experiments.Seen, experiments.Seen]
) -> None:
    every = experiment.metric.interval.seconds
    if known.looked_at is not None:
        left = every - (draft.now - known.looked_at).total_seconds()
        if left > 0:
            draft.wake.append(left)
            return
    known = experiments.look(experiment, known, *seen, draft.now)
    text = experiments.summary(experiment, known)
    known = known.model_copy(update={"summary": text})
    found = experiments.answer(experiment, known, draft.now)
    if found is not None:
        known = known.model_copy(update={"recommendation": found})
        draft.note("ExperimentEnded", f"recommendation: {found}; {text}", warning=found is not Recommendation.PROMOTE)
    draft.update_release(experiment=known)
    if found is not None:
        _conclude(draft, experiment, known)
        return
    draft.wake.append(every)
    late = experiments.forecast(experiment, known, draft.now)
    draft.say("Experimenting", f"{text}; {late}" if late else text, text)


def _conclude(draft: Draft, experiment: Experiment, known: ExperimentStatus) -> None:
    """A worse candidate goes at once; everything else is the user's choice."""
    text = known.summary or ""
    if known.recommendation is Recommendation.ROLL_BACK:
        roll_back(draft, "ExperimentLost", f"the live version is better: {text}", text)
        return
    promote = experiment.on_success is OnSuccess.PROMOTE
    if known.recommendation is Recommendation.KEEP_LIVE and promote:
        roll_back(draft, "ExperimentUndecided", f"no difference was found in {experiment.max_duration}: {text}", text)
        return
    if draft.release.approved != draft.release.step and not (promote and not (draft.step and draft.step.approval)):
        advice = (
            "approve to go on" if known.recommendation is Recommendation.PROMOTE else "abort, or approve all the same"
        )
        draft.say("ExperimentEnded", f"recommendation: {known.recommendation} ({advice}); {text}", text)
        return
    if not may_not_pass(draft, text):
        pass_step(draft, "the experiment", text)


def _counters(draft: Draft, experiment: Experiment) -> tuple[experiments.Seen, experiments.Seen] | str:
    live = draft.status.live
    evidence = draft.given.evidence
    base = experiments.read(experiment, evidence, live.revision if live else "", required=True)
    if isinstance(base, str):
        return base
    candidate = experiments.read(experiment, evidence, draft.release.revision, required=False)
    return candidate if isinstance(candidate, str) else (base, candidate)
