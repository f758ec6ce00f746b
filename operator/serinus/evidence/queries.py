"""PromQL of one tick: one query per metric for the whole cluster, grouped by release, never one per release.

Every bundled runtime carries the labels `model_namespace`, `model_deployment` and `revision` on each series, so the
answers do not depend on how Prometheus discovered the pods.
"""

from __future__ import annotations

OWNER = "model_namespace, model_deployment, revision"
SERIES = f"{OWNER}, instance"
"""Raw counters stay apart by pod: a restart must be seen as one."""
ERRORS = '{code=~"5..|429"}'
WINDOW = "1m"
"""Window of the figures that people read. Verdicts do not use it: they are made from counts."""

COUNTERS = {
    "requests": f"sum by ({SERIES}) (serinus_requests_total)",
    "errors": f"sum by ({SERIES}) (serinus_requests_total{ERRORS})",
    "slow": f"sum by ({SERIES}) (serinus_slow_requests_total)",
}


def _quantile(q: float) -> str:
    rates = f"sum by ({OWNER}, le) (rate(serinus_request_duration_seconds_bucket[{WINDOW}]))"
    return f"histogram_quantile({q}, {rates})"


_REQUESTS = f"sum by ({OWNER}) (rate(serinus_requests_total[{WINDOW}]))"
_ERRORS = f"sum by ({OWNER}) (rate(serinus_requests_total{ERRORS}[{WINDOW}]))"

RATES = {
    "p50": _quantile(0.5),
    "p95": _quantile(0.95),
    "p99": _quantile(0.99),
    "requests_per_second": _REQUESTS,
    "error_rate": f"({_ERRORS} or 0 * {_REQUESTS}) / {_REQUESTS}",
}
