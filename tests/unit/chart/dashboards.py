"""The Grafana dashboards of the chart, written out by `python -m unit.chart.dashboards`; a test keeps them current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "charts/serinus/dashboards"
Panel = dict[str, Any]
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_MODEL = 'model_namespace=~"$namespace", model_deployment=~"$deployment"'
_WIDTHS = {"small": 6, "half": 12, "full": 24}


def _panel(
    title: str,
    *queries: tuple[str, str],
    unit: str = "short",
    size: str = "half",
    kind: str = "timeseries",
    text: str = "",
    limits: tuple[float, ...] = (),
) -> Panel:
    """Queries are pairs of PromQL, in which MODEL stands for the chosen models, and a legend."""
    steps = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": limit} for color, limit in zip(("orange", "red"), limits, strict=False)]
    return {
        "title": title,
        "description": text,
        "type": kind,
        "datasource": _SOURCE,
        "gridPos": {"h": 4 if size == "small" else 8, "w": _WIDTHS[size]},
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if limits else "off"}} if kind == "timeseries" else {},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {},
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "expr": query.replace("MODEL", _MODEL),
                "legendFormat": legend,
                "datasource": _SOURCE,
                **({"format": "heatmap"} if kind == "heatmap" else {}),
            }
            for at, (query, legend) in enumerate(queries)
        ],
    }


def _quantiles(metric: str, more: str = "", by: str = "revision") -> list[tuple[str, str]]:
    return [
        (
            f"histogram_quantile({q}, sum by ({by}, le) (rate({metric}_bucket{{MODEL{more}}}[$__rate_interval])))",
            f"{{{{{by}}}}} p{round(q * 100)}",
        )
        for q in (0.5, 0.95, 0.99)
    ]


def _dcgm(metric: str, legend: str) -> list[tuple[str, str]]:
    """Of the models' pods, which the exporter names in labels that Prometheus renames unless told to honour them."""
    pods = '{%snamespace=~"$namespace", %spod=~"($deployment)-.+"}'
    return [
        (f"avg by ({prefix}pod) ({metric}{pods % (prefix, prefix)})", f"{{{{{prefix}pod}}}} {legend}")
        for prefix in ("", "exported_")
    ]


_RATE = "sum by (revision) (rate({}[$__rate_interval]))"


def models() -> list[Panel]:
    """What the runtime says."""
    requests = _RATE.format("serinus_requests_total{MODEL}")
    failed = _RATE.format('serinus_requests_total{MODEL, code=~"5..|429"}')
    slow = _RATE.format("serinus_slow_requests_total{MODEL}")
    counted = _RATE.format("serinus_request_duration_seconds_count{MODEL}")
    return [
        _panel("Requests per second", (requests.replace(" by (revision)", ""), ""), unit="reqps", size="small",
               kind="stat"),
        _panel("Errors", (f"sum({failed}) / sum({requests})", ""), unit="percentunit", size="small", kind="stat",
               limits=(0.001, 0.01), text="5xx and 429"),
        _panel("Slower than the SLO", (f"sum({slow}) / sum({counted})", ""), unit="percentunit", size="small",
               kind="stat", limits=(0.01, 0.1)),
        _panel("Pods serving", ("count(serinus_model_info{MODEL})", "all"),
               ("count(serinus_model_proved{MODEL} == 0)", "unproved"), size="small", kind="stat",
               text="unproved, where there are any: warm-up has not seen the model answer"),
        _panel("Requests by revision", (requests, "{{revision}}"), unit="reqps"),
        _panel("Errors by revision", (f"{failed} / {requests}", "{{revision}}"), unit="percentunit",
               limits=(0.001, 0.01)),
        _panel("Time in the server", *_quantiles("serinus_request_duration_seconds"), unit="s"),
        _panel("Slower than the SLO, by revision", (f"{slow} / {counted}", "{{revision}}"), unit="percentunit",
               limits=(0.01, 0.1)),
        _panel("Answers by code",
               ("sum by (code) (rate(serinus_requests_total{MODEL}[$__rate_interval]))", "{{code}}"), unit="reqps"),
        _panel("Refused, by reason",
               ("sum by (reason) (rate(serinus_rejected_total{MODEL}[$__rate_interval]))", "{{reason}}"),
               unit="reqps"),
        _panel("Time by stage, p95",
               ("histogram_quantile(0.95, sum by (stage, le) "
                "(rate(serinus_stage_duration_seconds_bucket{MODEL}[$__rate_interval])))", "{{stage}}"),
               unit="s", text="infer is per batch, everything else per request"),
        _panel("Rows per batch",
               ("sum by (revision) (rate(serinus_batch_size_sum{MODEL}[$__rate_interval])) / "
                "sum by (revision) (rate(serinus_batch_size_count{MODEL}[$__rate_interval]))", "{{revision}}")),
        _panel("Queue", ("max by (revision) (serinus_queue_depth{MODEL})", "{{revision}} rows"),
               ("max by (revision) (serinus_queue_limit{MODEL})", "{{revision}} limit"), text="the fullest pod"),
        _panel("Under way", ("sum by (revision) (serinus_inflight_requests{MODEL})", "{{revision}}")),
        _panel("Drift: PSI against the reference",
               ("max by (feature, kind) (serinus_drift_psi{MODEL})", "{{kind}} {{feature}}"), limits=(0.1, 0.25),
               text="the worst pod; above 0.1 something moved, above 0.25 it is far away"),
        _panel("Scores",
               ("sum by (le) (increase(serinus_score_bucket{MODEL}[$__rate_interval]))", "{{le}}"), kind="heatmap"),
        _panel("Response cache",
               ("sum by (outcome) (rate(serinus_response_cache_requests_total{MODEL}[$__rate_interval]))",
                "{{outcome}}"), unit="reqps"),
        _panel("Prediction log",
               ("sum by (outcome) (rate(serinus_prediction_log_lines_total{MODEL}[$__rate_interval]))",
                "{{outcome}}"), unit="cps"),
        _panel("Time to load", ("max by (revision) (serinus_model_load_seconds{MODEL})", "{{revision}}"), unit="s"),
        _panel("GPU", *_dcgm("DCGM_FI_DEV_GPU_UTIL", "busy"), *_dcgm("DCGM_FI_DEV_MEM_COPY_UTIL", "memory busy"),
               unit="percent", limits=(90,), text="from NVIDIA's DCGM exporter, where it runs: the model's own pods"),
        _panel("Restarts of worker processes",
               ("sum by (revision) (increase(serinus_worker_restarts_total{MODEL}[$__rate_interval]))",
                "{{revision}}")),
    ]  # fmt: skip


def operator() -> list[Panel]:
    """What the operator says."""
    return [
        _panel("Leader", ("sum(serinus_operator_leader)", ""), size="small", kind="stat"),
        _panel("Prometheus answers", ("max(serinus_operator_prometheus_up)", ""), size="small", kind="stat"),
        _panel("Keys in the queue", ("sum(serinus_operator_queue_length)", ""), size="small", kind="stat"),
        _panel("Not ready", ('count(serinus_operator_condition{type="Ready"} == 0)', ""), size="small", kind="stat",
               limits=(1,)),
        _panel("ModelDeployments by phase", ("sum by (phase) (serinus_operator_modeldeployments)", "{{phase}}")),
        _panel("Weight of the candidate",
               ("max by (model_namespace, model_deployment) (serinus_operator_candidate_weight) > 0",
                "{{model_namespace}}/{{model_deployment}}"), unit="percent"),
        _panel("What was told", ("sum by (reason) (increase(serinus_operator_events_total[$__rate_interval]))",
                                 "{{reason}}")),
        _panel("Stalled and held",
               ('serinus_operator_condition{type=~"Stalled|EvidenceMissing"} == 1',
                "{{model_namespace}}/{{model_deployment}} {{reason}}")),
        _panel("Time of a reconcile",
               ("histogram_quantile(0.99, sum by (le) "
                "(rate(serinus_operator_reconcile_duration_seconds_bucket[$__rate_interval])))", "p99"), unit="s"),
        _panel("Reconciles that failed",
               ("sum(rate(serinus_operator_reconcile_errors_total[$__rate_interval]))", "errors"), unit="cps"),
        _panel("Writes", ("sum(rate(serinus_operator_api_writes_total[$__rate_interval]))", "objects"),
               ("sum(rate(serinus_operator_status_writes_total[$__rate_interval]))", "status"), unit="cps"),
        _panel("Snapshots of Prometheus",
               ("sum by (result) (rate(serinus_operator_snapshots_total[$__rate_interval]))", "{{result}}"),
               ("sum(rate(serinus_operator_snapshot_duration_seconds_sum[$__rate_interval])) / "
                "sum(rate(serinus_operator_snapshot_duration_seconds_count[$__rate_interval]))", "seconds each")),
    ]  # fmt: skip


def _variable(name: str, label: str, of: str) -> Panel:
    return {
        "name": name, "label": label, "type": "query", "datasource": _SOURCE, "query": {"query": of, "refId": name},
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
        "refresh": 2, "sort": 1,
    }  # fmt: skip


def dashboard(uid: str, title: str, panels: list[Panel], *, chosen: bool) -> Panel:
    """A dashboard; panels flow from left to right. `chosen`: models can be chosen by namespace and name."""
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        place = panel["gridPos"]
        if x + place["w"] > 24:
            x, y, row = 0, y + row, 0
        panel["id"] = number
        place |= {"x": x, "y": y}
        x, row = x + place["w"], max(row, place["h"])
    variables: list[Panel] = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    ]
    if chosen:
        variables += [
            _variable("namespace", "Namespace", "label_values(serinus_requests_total, model_namespace)"),
            _variable(
                "deployment",
                "Model",
                'label_values(serinus_requests_total{model_namespace=~"$namespace"}, model_deployment)',
            ),
        ]
    return {
        "uid": uid, "title": title, "tags": ["serinus"], "schemaVersion": 39, "version": 1, "editable": True,
        "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": variables}, "annotations": {"list": []}, "panels": panels,
    }  # fmt: skip


def files() -> dict[str, str]:
    """Text by file name."""
    made = {
        "serinus-models.json": dashboard("serinus-models", "Serinus / Models", models(), chosen=True),
        "serinus-operator.json": dashboard("serinus-operator", "Serinus / Operator", operator(), chosen=False),
    }
    return {name: json.dumps(told, indent=1) + "\n" for name, told in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)
