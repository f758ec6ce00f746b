"""What an experiment has seen: from counters to trials and successes, and to an answer."""

from __future__ import annotations

import math
from datetime import datetime

from serinus.api.experiment import Experiment
from serinus.api.shown import Arm, ExperimentStatus, Recommendation, SampleSize
from serinus.api.units import Percent
from serinus.evidence.samplesize import sample_size
from serinus.evidence.twosample import Block, bet, centre, log_evidence, start
from serinus.release.observed import Evidence

Seen = tuple[int, int]
"""Counters of one revision: trials and successes."""


def begin(experiment: Experiment, step: int) -> ExperimentStatus:
    """An experiment that has seen nothing, with the sample size it needs."""
    live, candidate = sample_size(
        experiment.baseline.fraction,
        experiment.effect,
        experiment.alpha.fraction,
        experiment.power.fraction,
        experiment.share / 100,
        experiment.design_effect,
    )
    return ExperimentStatus(
        step=step,
        sample_size=SampleSize(live=live, candidate=candidate),
        better=list(start()),
        worse=list(start()),
    )


def read(experiment: Experiment, evidence: Evidence, revision: str, *, required: bool) -> Seen | str:
    """The counters of a revision, or why there are none. One that nobody has tried yet may have no series."""
    if not evidence.available:
        return evidence.message
    values = []
    for name, query in (("trials", experiment.metric.trials), ("successes", experiment.metric.successes)):
        answer = evidence.own.get(query, "the query has not been asked yet")
        if isinstance(answer, str):
            return f"{name}: {answer}"
        value = answer.get(revision)
        if value is None and not (required and name == "trials"):
            value = 0.0
        if value is None or not math.isfinite(value) or value < 0:
            return f"{name}: the query has no sample with revision={revision}"
        values.append(int(value))
    return values[0], values[1]


def look(
    experiment: Experiment, known: ExperimentStatus, live: Seen, candidate: Seen, now: datetime
) -> ExperimentStatus:
    """The experiment after another look at the counters; the first one only notes where they stand."""
    if known.since is None:
        return known.model_copy(
            update={
                "since": now,
                "looked_at": now,
                "live": Arm(seen_trials=live[0], seen_successes=live[1]),
                "candidate": Arm(seen_trials=candidate[0], seen_successes=candidate[1]),
            }
        )
    after_live, after_candidate = grown(known.live, live), grown(known.candidate, candidate)
    block = Block(
        after_live.trials - known.live.trials,
        after_live.successes - known.live.successes,
        after_candidate.trials - known.candidate.trials,
        after_candidate.successes - known.candidate.successes,
    )
    share = centre(
        experiment.baseline.fraction,
        known.live.trials + known.candidate.trials,
        known.live.successes + known.candidate.successes,
    )
    effect, design = experiment.effect, experiment.design_effect
    return known.model_copy(
        update={
            "looked_at": now,
            "live": after_live,
            "candidate": after_candidate,
            "better": list(bet(known.better, block, share, effect, design)),
            "worse": list(bet(known.worse, block, share, -effect, design)),
        }
    )


def grown(arm: Arm, seen: Seen) -> Arm:
    """An arm after another look. A counter that fell was reset: what came meanwhile is unknown, and counts for nothing.

    Successes that are ahead of their trials wait for the next look.
    """
    trials, successes = seen
    if trials < arm.seen_trials or successes < arm.seen_successes:
        return arm.model_copy(update={"seen_trials": trials, "seen_successes": successes})
    more = trials - arm.seen_trials
    won = min(more, successes - arm.seen_successes)
    return Arm(
        trials=arm.trials + more,
        successes=arm.successes + won,
        seen_trials=trials,
        seen_successes=arm.seen_successes + won,
    )


def answer(experiment: Experiment, known: ExperimentStatus, now: datetime) -> Recommendation | None:
    """What the experiment says, or None while it says nothing yet."""
    threshold = math.log(2 / experiment.alpha.fraction)
    if log_evidence(known.better) >= threshold:
        return Recommendation.PROMOTE
    if log_evidence(known.worse) >= threshold:
        return Recommendation.ROLL_BACK
    if known.since is not None and (now - known.since).total_seconds() >= experiment.max_duration.seconds:
        return Recommendation.KEEP_LIVE
    return None


def summary(experiment: Experiment, known: ExperimentStatus) -> str:
    """The numbers as a sentence."""
    size = known.sample_size
    sure = max(log_evidence(known.better), log_evidence(known.worse))
    text = f"candidate {_share(known.candidate)}, live {_share(known.live)}"
    if sure > 0:
        better = log_evidence(known.better) >= log_evidence(known.worse)
        text += f"; {'better' if better else 'worse'}, sure to {100 * min(1 - 1e-9, 1 - math.exp(-sure)):.4g}%"
    return f"{text}; planned for {size.candidate} and {size.live} trials"


def forecast(experiment: Experiment, known: ExperimentStatus, now: datetime) -> str | None:
    """Whether the sample can be had in time at the present rate."""
    if known.since is None:
        return None
    elapsed = (now - known.since).total_seconds()
    limit = experiment.max_duration.seconds
    if elapsed < max(60.0, limit / 100) or known.candidate.trials == 0:
        return None
    expected = known.candidate.trials * limit / elapsed
    if expected >= known.sample_size.candidate:
        return None
    return f"at this rate there will be {expected:.0f} trials of the candidate when {experiment.max_duration} are over"


def _share(arm: Arm) -> str:
    rate = Percent.of(arm.successes / arm.trials) if arm.trials else "-"
    return f"{rate} ({arm.successes} of {arm.trials})"
