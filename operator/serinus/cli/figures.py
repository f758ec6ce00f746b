"""Pictures of what steps have found: a shadow's figures beside their limits, and both arms of an experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from serinus.api.experiment import Experiment
from serinus.api.shadow import Shadow
from serinus.api.shown import Arm, ExperimentStatus, ShadowStatus
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.units import Percent
from serinus.evidence.sequential import upper_bound
from serinus.evidence.twosample import log_evidence
from serinus.release.shadow import limit_of

WIDTH, ROW = 760, 30
_LEFT, _RIGHT, _TOP = 180, 160, 10
_LIMIT_AT = 0.6
"""Where along a bar its limit stands."""
_Z = 1.959964
_FIGURES = {
    "psi": "PSI of the scores",
    "ks": "KS of the scores",
    "input_psi": "PSI of the inputs",
    "input_ks": "KS of the inputs",
    "latency_ratio": "p95 by live's p95",
}


@dataclass(frozen=True)
class Gauge:
    """A figure and the largest good value; None: it has none."""

    name: str
    value: float
    limit: float | None
    shown: str


def pictures(
    spec: ModelDeploymentSpec, shadow: ShadowStatus | None, experiment: ExperimentStatus | None
) -> dict[str, Markup]:
    """Pictures by the part of a release's status that they belong to. Limits are those of the present specification."""
    steps = spec.release.plan_steps()

    def declared(known: ShadowStatus | ExperimentStatus) -> tuple[Shadow | None, Experiment | None]:
        step = steps[known.step] if known.step < len(steps) else None
        return (step.shadow, step.experiment) if step else (None, None)

    found = {}
    if shadow is not None and shadow.pairs:
        gauges = shadow_gauges(spec, declared(shadow)[0], shadow)
        found["shadow"] = bars("What the shadow found, beside its limits", gauges)
    if experiment is not None and experiment.live.trials + experiment.candidate.trials:
        asked = declared(experiment)[1]
        arms = [("live", experiment.live), ("candidate", experiment.candidate)]
        drawn = whiskers("Share of successes, and 95 % intervals", [(n, a) for n, a in arms if a.trials])
        if asked is not None:
            drawn += bars("Evidence of the experiment", evidence_gauges(asked, experiment))
        found["experiment"] = drawn
    return found


def shadow_gauges(spec: ModelDeploymentSpec, shadow: Shadow | None, known: ShadowStatus) -> list[Gauge]:
    """What a shadow is judged by: disagreement, failures, distances, times."""
    gauges = []
    if known.compared:
        share = known.disagreements / known.compared
        gauges.append(_share("disagreement", share, shadow.max_disagreement.fraction if shadow else None))
    errors, live = known.candidate_errors / known.pairs, known.live_errors / known.pairs
    allowed = max(spec.slo.error_rate.fraction, shadow.max_error_ratio * live) if shadow else None
    gauges.append(_share("candidate failed", errors, allowed))
    for field, name in _FIGURES.items():
        value: float | None = getattr(known, field)
        if value is not None:
            limit = limit_of(shadow, field) if shadow else None
            shown = f"{value:.3g}" + (f", limit {limit:g}" if limit is not None else "")
            gauges.append(Gauge(name, value, limit, shown))
    return gauges


def evidence_gauges(experiment: Experiment, known: ExperimentStatus) -> list[Gauge]:
    """How far the bets on either side are on their way to an answer, as logarithms of their capital."""
    sure = math.log(2 / experiment.alpha.fraction)
    rows = (("candidate is better", known.better), ("candidate is worse", known.worse))
    logs = [(name, log_evidence(capital)) for name, capital in rows if capital]
    return [Gauge(name, max(0.0, value), sure, f"{value:.2f} of {sure:.2f}") for name, value in logs]


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 %, for one look (Wilson 1927)."""
    return 1.0 - upper_bound(trials - successes, trials, _Z), upper_bound(successes, trials, _Z)


def bars(title: str, gauges: Sequence[Gauge]) -> Markup:
    """A bar for each figure, scaled so that all limits stand at one line; nothing without figures."""
    if not gauges:
        return Markup()
    room, drawn = WIDTH - _LEFT - _RIGHT, []
    for number, gauge in enumerate(gauges):
        y = _TOP + number * ROW
        over = gauge.limit is not None and gauge.value > gauge.limit
        share = min(1.0, _LIMIT_AT * gauge.value / gauge.limit) if gauge.limit else min(1.0, gauge.value)
        drawn.append(_label(gauge.name, y))
        drawn.append(
            Markup(
                '<rect class="track" x="{}" y="{}" width="{}" height="12"/>'
                '<rect class="{}" x="{}" y="{}" width="{}" height="12"><title>{}: {}</title></rect>'
            ).format(_LEFT, y + 4, room, "over" if over else "k0", _LEFT, y + 4, round(share * room, 1), gauge.name,
                     gauge.shown)
        )  # fmt: skip
        drawn.append(_value(gauge.shown if gauge.limit is not None else f"{gauge.shown} (no limit)", y))
    if any(gauge.limit is not None for gauge in gauges):
        x = round(_LEFT + _LIMIT_AT * room, 1)
        bottom = _TOP + len(gauges) * ROW
        drawn.append(
            Markup('<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="limit" x="{}" y="{}">{}</text>')
            .format(x, x, _TOP - 4, bottom, x - 4, bottom + 8, "limit")
        )  # fmt: skip
    return _svg(title, drawn, _TOP + len(gauges) * ROW + 14)


def whiskers(title: str, arms: Sequence[tuple[str, Arm]]) -> Markup:
    """The share of successes of each arm with its interval, on one scale."""
    shown = [(name, arm, *interval(arm.successes, arm.trials)) for name, arm in arms]
    low, high = min(each[2] for each in shown), max(each[3] for each in shown)
    room, span = WIDTH - _LEFT - _RIGHT, (high - low) or 1.0

    def x(share: float) -> float:
        return round(_LEFT + (share - low) / span * room, 1)

    drawn = []
    for number, (name, arm, left, right) in enumerate(shown):
        y, share = _TOP + number * ROW, arm.successes / arm.trials
        told = f"{_percent(share)}, {_percent(left)} to {_percent(right)}"
        drawn.append(_label(name, y))
        drawn.append(
            Markup(
                '<path class="l{}" d="M{} {}H{}"/><circle class="l{}" cx="{}" cy="{}" r="4"><title>{}: {}</title>'
                "</circle>"
            ).format(number, x(left), y + 10, x(right), number, x(share), y + 10, name, told)
        )
        drawn.append(_value(f"{_percent(share)} of {arm.trials:,}", y))
    bottom = _TOP + len(shown) * ROW + 8
    for share, anchor in ((low, "start"), (high, "end")):
        drawn.append(
            Markup('<text text-anchor="{}" x="{}" y="{}">{}</text>').format(anchor, x(share), bottom, _percent(share))
        )
    return _svg(title, drawn, bottom + 6)


def _share(name: str, value: float, limit: float | None) -> Gauge:
    return Gauge(name, value, limit, _percent(value) + (f", limit {_percent(limit)}" if limit is not None else ""))


def _percent(share: float) -> str:
    return str(Percent.of(min(1.0, max(0.0, share))))


def _label(name: str, y: float) -> Markup:
    return Markup('<text text-anchor="end" x="{}" y="{}">{}</text>').format(_LEFT - 8, y + 14, name)


def _value(text: str, y: float) -> Markup:
    return Markup('<text class="value" x="{}" y="{}">{}</text>').format(WIDTH - _RIGHT + 8, y + 14, text)


def _svg(title: str, parts: Sequence[Markup], height: float) -> Markup:
    return Markup(
        '<svg class="chart figures" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(WIDTH, height, title, title, Markup("").join(parts))
