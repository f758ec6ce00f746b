"""What the pairs of a shadow say about its candidate. Fail needs evidence, pass needs exposure, silence is neither.

Disagreements and the candidate's failures are counts: the sequential tests of a canary step judge them, on blocks of
what the joiner counted between two looks, each with half of the step's share of alpha. PSI, KS and the ratio of times
are distances between samples of thousands, without a test: they count against the candidate once there are `minPairs`,
and when they are above their limits at three looks in a row.
"""

from __future__ import annotations

from collections.abc import Mapping

from serinus.api.shadow import Shadow
from serinus.api.shown import Counts, Recent, ShadowStatus, Unpaired
from serinus.api.units import Percent
from serinus.evidence.sequential import LARGEST
from serinus.evidence.verdict import Finding, Question, SequentialJudge, Verdict
from serinus.release.draft import Draft
from serinus.release.observed import Mirrored

LOOKS = 3
"""Looks in a row at which a figure must be above its limit."""
_FIGURES = {
    "psi": ("max_psi", "ScoresShifted", "PSI of the scores"),
    "ks": ("max_ks", "ScoresShifted", "KS of the scores"),
    "input_psi": ("max_input_psi", "InputsDiffer", "PSI of a column of the inputs"),
    "input_ks": ("max_input_ks", "InputsDiffer", "KS of a column of the inputs"),
    "latency_ratio": ("max_latency_ratio", "SlowerInShadow", "p95 by the live version's"),
}
"""By figure: its limit's field, the reason, and what people call it."""


def limit_of(shadow: Shadow, figure: str) -> float | None:
    """The largest good value of a figure; None where every one is good."""
    limit: float | None = getattr(shadow, _FIGURES[figure][0])
    return limit


def gather(draft: Draft, known: ShadowStatus, shadow: Shadow, fresh: Mirrored) -> ShadowStatus:
    """`known` after another look."""
    outcomes = fresh.outcomes
    pairs = sum(outcomes.values())
    differ, both = outcomes.get("disagreed", 0), outcomes.get("both_failed", 0)
    compared = outcomes.get("agreed", 0) + differ
    errors, live_errors = outcomes.get("candidate_failed", 0) + both, outcomes.get("live_failed", 0) + both
    found = known.model_copy(
        update={
            "pairs": known.pairs + pairs,
            "compared": known.compared + compared,
            "disagreements": known.disagreements + differ,
            "candidate_errors": known.candidate_errors + errors,
            "live_errors": known.live_errors + live_errors,
            "incomparable": known.incomparable + outcomes.get("incomparable", 0),
            "unpaired": _unpaired(known.unpaired, fresh.unpaired),
            "paired_at": draft.now if pairs else known.paired_at,
            **{name: fresh.figures.get(name, getattr(known, name)) for name in _FIGURES},
        }
    )
    tests = dict(known.tests)
    held = (draft.now - known.since).total_seconds() if known.since else 0.0
    progress = held / max(shadow.duration.seconds, 1e-9)
    nobody = Recent()
    if (judge := _disagreement(draft, shadow)) and compared:
        block = Counts(requests=compared, errors=differ)
        tests |= judge.observe(tests, [block], Counts(), nobody, progress)
    if pairs:
        live = Counts(requests=found.pairs, errors=found.live_errors)
        block = Counts(requests=pairs, errors=errors)
        tests |= _errors(draft, shadow, found).observe(tests, [block], live, nobody, progress)
    # A decision without a new pair has seen no new scrape: it is no look of its own.
    above = (
        dict(known.above)
        if not pairs
        else {
            name: known.above.get(name, 0) + 1
            for name in _FIGURES
            if (limit := limit_of(shadow, name)) is not None
            and found.pairs >= shadow.min_pairs
            and (value := fresh.figures.get(name)) is not None
            and value > limit
        }
    )
    share = found.disagreements / found.compared if found.compared else None
    fields = {"tests": tests, "above": above, "disagreement": None if share is None else str(Percent.of(share))}
    found = found.model_copy(update=fields)
    return found.model_copy(update={"message": sentence(found)})


def verdict(draft: Draft, shadow: Shadow, found: ShadowStatus) -> Verdict:
    """What the pairs say so far. Pass leaves out time: that is the phase's."""
    message = found.message or sentence(found)
    counted = Counts(requests=found.compared, errors=found.disagreements)
    if judge := _disagreement(draft, shadow):
        told = judge.judge(found.tests, counted, Counts(), Recent(), 1)
        if told.finding is Finding.FAIL:
            return _said(told, "by shadow.maxDisagreement")
    live = Counts(requests=found.pairs, errors=found.live_errors)
    candidate = Counts(requests=found.pairs, errors=found.candidate_errors)
    told = _errors(draft, shadow, found).judge(found.tests, candidate, live, Recent(), 1)
    if told.finding is Finding.FAIL:
        return _said(told, "by the SLO and shadow.maxErrorRatio")
    for name, looks in found.above.items():
        if looks >= LOOKS:
            _, reason, text = _FIGURES[name]
            value, limit = getattr(found, name), limit_of(shadow, name)
            return Verdict(Finding.FAIL, reason, f"{text} is {value:.3g}, allowed are {limit:g}; {message}")
    if found.pairs == 0:
        return Verdict(Finding.NOT_YET, "NoPairs", "no request was answered by both versions yet")
    if found.pairs < shadow.min_pairs:
        return Verdict(Finding.NOT_YET, "TooFewPairs", f"{message}; {shadow.min_pairs} pairs are needed")
    return _complete(shadow, found, counted, message)


def _complete(shadow: Shadow, found: ShadowStatus, counted: Counts, message: str) -> Verdict:
    """With pairs enough: whether all that is asked for is there and within its limits."""
    if counted.requests == 0:
        text = "the answers have no output in common that could be compared"
        return Verdict(Finding.NOT_YET, "NothingToCompare", f"{message}; {text}")
    limit = shadow.max_disagreement
    if counted.errors / counted.requests > limit.fraction:
        text = f"{limit} may disagree, and it is not sure that more do"
        return Verdict(Finding.NOT_YET, "Undecided", f"{message}; {text}")
    if found.above:
        text = _FIGURES[next(iter(found.above))][2]
        return Verdict(Finding.NOT_YET, "Undecided", f"{message}; {text} is above its limit")
    # Scores and columns are told only of models that have some; times there always are.
    if shadow.max_latency_ratio is not None and found.latency_ratio is None:
        return Verdict(Finding.NOT_YET, "FigureMissing", f"{message}; the joiner has told no times yet")
    return Verdict(Finding.PASS, "Agrees", message)


def sentence(found: ShadowStatus) -> str:
    """The numbers for people."""
    parts = [f"{found.pairs} pairs"]
    if found.disagreement is not None:
        parts.append(f"{found.disagreement} disagree")
    parts.append(f"the candidate failed {found.candidate_errors}, live {found.live_errors}")
    names = {"psi": "PSI", "ks": "KS", "input_psi": "inputs' PSI", "latency_ratio": "p95 ratio"}
    parts += [f"{text} {getattr(found, name):.3g}" for name, text in names.items() if getattr(found, name) is not None]
    return ", ".join(parts)


def _disagreement(draft: Draft, shadow: Shadow) -> SequentialJudge | None:
    limit = shadow.max_disagreement.fraction
    if limit >= LARGEST:
        return None
    question = Question("disagreement", "errors", "Disagreement", "disagreed with the live version", limit)
    return SequentialJudge((question,), _alpha(draft))


def _errors(draft: Draft, shadow: Shadow, found: ShadowStatus) -> SequentialJudge:
    live = found.live_errors / found.pairs if found.pairs else 0.0
    limit = max(draft.spec.slo.error_rate.fraction, shadow.max_error_ratio * live)
    return SequentialJudge((Question("errors", "errors", "ErrorsInShadow", "failed", limit),), _alpha(draft))


def _alpha(draft: Draft) -> float:
    """Half of what the step may use: there are two tests."""
    return draft.judge(draft.release.step).alpha / 2


def _said(told: Verdict, limit: str) -> Verdict:
    return Verdict(told.finding, told.reason, told.message.replace("by the SLO", limit).replace("requests", "pairs"))


def _unpaired(known: Unpaired, fresh: Mapping[str, int]) -> Unpaired:
    return Unpaired(
        not_mirrored=known.not_mirrored + fresh.get("live_only", 0),
        **{
            name: getattr(known, name) + fresh.get(name, 0)
            for name in ("candidate_only", "duplicate", "evicted", "lost")
        },
    )
