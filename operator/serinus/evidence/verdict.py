"""From counts to a verdict: fail needs evidence, pass needs exposure, silence is neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Literal

from serinus.api.analysis import WorseThanLive
from serinus.api.shown import Capital, Counts, Recent
from serinus.api.spec import Slo
from serinus.api.units import Percent
from serinus.evidence import versus
from serinus.evidence.sequential import AGAIN, HELD_BACK, MOST, bet, invest, log_evidence, start, upper_bound

SLOW_FRACTION = 0.01
"""p99 <= limit means: at most one request in a hundred is slower than the limit."""
FADE = 0.95
"""What is left of the live revision's recent counts after another look: half of it after about 14."""
_STRICTEST = 1e-6
LAXEST = 0.9
"""The largest share that a candidate is held to: nearly all, where the live revision fails altogether."""
_NOTHING = Counts()
_FIRST = 0.4
"""Share of alpha for the first stage: that is where a broken candidate shows itself, and soon matters most."""


class Finding(StrEnum):
    FAIL = "Fail"
    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    NOT_YET = "NotYet"


@dataclass(frozen=True)
class Verdict:
    """What the counts say, why (a CamelCase word), and the numbers as a sentence for people."""

    finding: Finding
    reason: str
    message: str


@dataclass(frozen=True)
class Question:
    """One test: is the candidate's share of such requests too large?"""

    name: str
    field: Literal["errors", "slow"]
    reason: str
    verb: str
    limit: float
    """Largest good share; with `versus_live`, largest good difference."""
    versus_live: bool = False


def questions(slo: Slo, worse: WorseThanLive | None = None) -> tuple[Question, ...]:
    """The tests that a specification asks for."""
    slow = f"took longer than {slo.p99}"
    asked = [
        Question("errors", "errors", "ErrorRateTooHigh", "failed", slo.error_rate.fraction),
        Question("slow", "slow", "LatencyTooHigh", slow, SLOW_FRACTION),
    ]
    if worse and worse.error_rate:
        margin = worse.error_rate.fraction
        asked.append(Question("errorsVersusLive", "errors", "MoreErrorsThanLive", "failed", margin, versus_live=True))
    if worse and worse.slow_requests:
        margin = worse.slow_requests.fraction
        asked.append(Question("slowVersusLive", "slow", "SlowerThanLive", slow, margin, versus_live=True))
    return tuple(asked)


def share_of_alpha(stage: int, stages: int) -> float:
    """How much of a release's alpha one stage may use: two fifths for the first, the rest evenly."""
    if stages <= 1:
        return 1.0
    return _FIRST if stage == 0 else (1 - _FIRST) / (stages - 1)


def fade(recent: Recent, fresh: Counts) -> Recent:
    """The live revision's recent counts after another look."""
    if fresh.requests == 0:
        return recent
    return Recent(
        requests=round(FADE * recent.requests + fresh.requests, 3),
        errors=round(FADE * recent.errors + min(fresh.errors, fresh.requests), 3),
        slow=round(FADE * recent.slow + min(fresh.slow, fresh.requests), 3),
    )


@dataclass(frozen=True)
class SequentialJudge:
    """Anytime-valid tests of error rate and slow fraction against the SLO and, where asked for, the live revision.

    Where the live revision itself misses the limit over the same time, the candidate is held to the live revision's
    upper confidence bound instead: what hits both blames neither.
    """

    questions: tuple[Question, ...]
    alpha: float
    """Accepted chance of one false alarm in this stage, shared evenly by the questions."""

    def observe(
        self,
        tests: Mapping[str, Capital],
        blocks: Sequence[Counts],
        live: Counts,
        recent: Recent,
        progress: float = 1.0,
        before: Sequence[Counts] = (),
        fresh: Counts = _NOTHING,
        beside: Sequence[Counts] = (),
    ) -> dict[str, Capital]:
        """The tests after another look.

        Args:
            tests: as the look before left them; empty when a stage begins.
            blocks: the candidate's requests since then, one entry per pod.
            live: the live revision's requests over the same stage, the present look included.
            recent: the same, faded.
            progress: how much of the stage's time is over, 0 to 1.
            before: what the pods of `blocks` answered in the look before, in the same order; nothing where unknown.
            fresh: the live revision's requests in this look alone.
            beside: the same, one entry per pod. Without it nothing is compared with the live revision.
        """
        after = {}
        for question in self.questions:
            known = tests.get(question.name, Capital())
            held_back = min(known.held_back, HELD_BACK * (1 - min(1.0, max(0.0, progress))))
            capital = invest(known.invested or start(), known.held_back - held_back)
            most = [
                AGAIN if getattr(earlier, question.field) > 0 else MOST
                for _, earlier in zip_longest(blocks, before[: len(blocks)], fillvalue=_NOTHING)
            ]
            mine = [_block(question, block) for block in blocks]
            if question.versus_live:
                margin = _clipped(question.limit)
                # What is left of the looks before this one.
                bad, requests = getattr(recent, question.field), recent.requests - fresh.requests
                share = versus.guess(bad - _block(question, fresh)[0], requests, margin)
                theirs = [_block(question, block) for block in beside]
                capital = versus.bet(capital, mine, theirs, share, margin, most)
            else:
                bound, _ = allowed(question, live, recent, fresh)
                for (bad, requests), top in zip(mine, most, strict=True):
                    capital = bet(capital, bad, requests, bound, top)
            after[question.name] = Capital(invested=list(capital), held_back=held_back)
        return after

    def judge(
        self, tests: Mapping[str, Capital], candidate: Counts, live: Counts, recent: Recent, min_requests: int
    ) -> Verdict:
        """Fail as soon as the evidence is clear; pass once `min_requests` were answered and nothing speaks against."""
        threshold = math.log(len(self.questions) / self.alpha)
        for question in self.questions:
            known = tests.get(question.name)
            if known is None or not known.invested:
                continue
            evidence = log_evidence(known.invested, known.held_back)
            if evidence >= threshold:
                return self._fail(question, candidate, live, recent, evidence)
        numbers = f"{candidate.requests} requests, error rate {_share(candidate.errors, candidate)}, "
        numbers += f"slow fraction {_share(candidate.slow, candidate)}"
        if candidate.requests == 0:
            return Verdict(Finding.NOT_YET, "NoRequests", "the candidate has answered no request at this step yet")
        if candidate.requests < min_requests:
            return Verdict(Finding.NOT_YET, "TooFewRequests", f"{numbers}; {min_requests} requests are needed")
        return Verdict(Finding.PASS, "WithinSLO", numbers)

    def _fail(self, question: Question, candidate: Counts, live: Counts, recent: Recent, evidence: float) -> Verdict:
        bad, _ = _block(question, candidate)
        sure = min(1 - 1e-9, 1 - math.exp(-evidence))
        text = f"{bad} of {candidate.requests} requests {question.verb} ({_share(bad, candidate)}); "
        text += f"allowed are {_allowance(question, live, recent)}; sure to {100 * sure:.4g}%"
        return Verdict(Finding.FAIL, question.reason, text)


def _allowance(question: Question, live: Counts, recent: Recent) -> str:
    if question.versus_live:
        bad, _ = _block(question, live)
        return f"{Percent.of(question.limit)} more than the live revision's {_share(bad, live)}"
    bound, source = allowed(question, live, recent)
    return f"{Percent.of(bound)}{source}"


def allowed(question: Question, live: Counts, recent: Recent, fresh: Counts = _NOTHING) -> tuple[float, str]:
    """The share the SLO holds a candidate to, and how to say where it comes from."""
    bad, lately = min(getattr(live, question.field), live.requests), getattr(recent, question.field)
    now = min(getattr(fresh, question.field), fresh.requests)
    limit = bound = _clipped(question.limit)
    if live.requests > 0 and bad / live.requests > limit:
        bound = max(limit, upper_bound(bad, live.requests))
    if _surely_above(lately, recent.requests, limit):
        bound = max(bound, upper_bound(lately, recent.requests))
    if _surely_above(now, fresh.requests, bound):
        bound = max(bound, upper_bound(now, fresh.requests))
    if bound > limit:
        return _clipped(bound), " (the live revision misses the SLO too)"
    return limit, " by the SLO"


def _block(question: Question, counts: Counts) -> versus.Block:
    return min(getattr(counts, question.field), counts.requests), counts.requests


def _surely_above(bad: float, requests: float, limit: float) -> bool:
    """Whether the lower end of the Wilson interval is above `limit`."""
    return requests > 0 and 1 - upper_bound(requests - bad, requests) > limit


def _clipped(share: float) -> float:
    return round(min(max(share, _STRICTEST), LAXEST), 9)


def _share(bad: int, counts: Counts) -> str:
    return Percent.of(min(bad, counts.requests) / counts.requests) if counts.requests else "0%"
