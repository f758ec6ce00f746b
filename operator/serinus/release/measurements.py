"""Threshold metrics: figures of the last minute and users' own PromQL, each with a limit on bad ones in a row.

No value is neither good nor bad: it keeps the count as it is and holds the step. A metric in dry run is measured and
shown, and decides nothing.
"""

from __future__ import annotations

import math

from serinus.api.analysis import Figure, Metric
from serinus.api.shown import Measurement, MetricStatus
from serinus.evidence.verdict import Finding, Verdict
from serinus.release.draft import Draft

KEPT = 10
"""Measurements kept in status, per metric."""
_FIELDS = {
    Figure.P50: "p50",
    Figure.P95: "p95",
    Figure.P99: "p99",
    Figure.ERROR_RATE: "error_rate",
    Figure.REQUESTS_PER_SECOND: "requests_per_second",
}


def measure(draft: Draft) -> None:
    """Takes the measurements that are due: of a candidate that has users, once the gateway serves it."""
    since = draft.release.serving_since
    if since is None or draft.release.weight == 0:
        return
    known = {status.name: status for status in draft.release.metrics}
    after = []
    for metric in draft.spec.release.analysis.metrics:
        status = known.get(metric.name, MetricStatus(name=metric.name))
        last = max(since, status.measurements[-1].at) if status.measurements else since
        left = metric.interval.seconds - (draft.now - last).total_seconds()
        if left <= 0:
            status = _measured(draft, metric, status)
            left = metric.interval.seconds
        draft.wake.append(max(left, 0.1))
        after.append(status)
    if after != draft.release.metrics:
        draft.update_release(metrics=after)


def verdict(draft: Draft) -> Verdict | None:
    """What the measurements say: fail, hold for want of a value, or nothing."""
    missing: Verdict | None = None
    known = {status.name: status for status in draft.release.metrics}
    for metric in draft.spec.release.analysis.metrics:
        status = known.get(metric.name)
        if metric.dry_run:
            continue
        if status is None or not status.measurements:
            message = f"metric {metric.name} is measured for the first time after {metric.interval}"
            missing = missing or Verdict(Finding.NOT_YET, "Measuring", message)
            continue
        last = status.measurements[-1]
        if status.bad_in_a_row >= metric.failure_limit and last.value is not None:
            text = (
                f"{metric.name} is {_text(metric, last.value)}, {_limits(metric)}; {status.bad_in_a_row} bad in a row"
            )
            return Verdict(Finding.FAIL, "MetricOutOfRange", text)
        if last.value is None:
            text = f"metric {metric.name} has no value: {last.problem}"
            missing = Verdict(Finding.NOT_YET, "MetricMissing", text)
        elif not last.good:
            text = f"{metric.name} is {_text(metric, last.value)}, {_limits(metric)}"
            missing = missing or Verdict(Finding.NOT_YET, "MetricOutOfRange", text)
    return missing


def _measured(draft: Draft, metric: Metric, status: MetricStatus) -> MetricStatus:
    value, problem = _value(draft, metric)
    good = None
    bad = status.bad_in_a_row
    if value is not None:
        good = (metric.max is None or value <= metric.max) and (metric.min is None or value >= metric.min)
        bad = 0 if good else bad + 1
    taken = Measurement(at=draft.now, value=value, good=good, problem=problem)
    return status.model_copy(
        update={"measurements": [*status.measurements, taken][-KEPT:], "bad_in_a_row": bad, "dry_run": metric.dry_run}
    )


def _value(draft: Draft, metric: Metric) -> tuple[float | None, str | None]:
    evidence, revision = draft.given.evidence, draft.release.revision
    if not evidence.available:
        return None, evidence.message
    if metric.query is None:
        rates = evidence.rates.get(revision)
        value = getattr(rates, _FIELDS[metric.figure]) if rates and metric.figure else None
        problem = "nothing was measured in the last minute"
    else:
        answer = evidence.own.get(metric.query, "the query has not been asked yet")
        if isinstance(answer, str):
            return None, answer
        value = answer.get(revision)
        problem = f"the query has no sample with revision={revision}"
    if value is None or not math.isfinite(value):
        return None, problem
    return float(f"{value:.6g}"), None


def _text(metric: Metric, value: float) -> str:
    return f"{value:g} {metric.unit}".rstrip()


def _limits(metric: Metric) -> str:
    parts = [f"at least {_text(metric, metric.min)}"] if metric.min is not None else []
    parts += [f"at most {_text(metric, metric.max)}"] if metric.max is not None else []
    return "allowed is " + " and ".join(parts)
