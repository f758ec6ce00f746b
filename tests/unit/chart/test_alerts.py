"""The alert rules and dashboards: each alert fires when it should and not otherwise, every metric in them exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.packages import install
from unit.chart import dashboards
from unit.chart.test_chart import CHART, HELM, ROOT, helm, of, render

RULES = CHART / "rules/alerts.yaml"
WHO = 'model_namespace="shop", model_deployment="fraud", revision="r1", instance="a"'
OTHER = WHO.replace('"a"', '"b"')
OWNER = {"model_namespace": "shop", "model_deployment": "fraud"}
REVISION = {**OWNER, "revision": "r1"}


def promtool() -> str:
    """The program; installed with Prometheus where it is not there yet."""
    found = shutil.which("promtool")
    if found is None:
        try:
            install({"prometheus": "/usr/bin/prometheus"})
        except ClusterError as error:
            pytest.skip(f"no promtool: {error}")
        found = shutil.which("promtool")
    assert found is not None
    return found


def requests(good: str, bad: str = "0x600") -> dict[str, str]:
    """Requests of one pod, a value each minute."""
    return {
        f'serinus_requests_total{{{WHO}, code="200"}}': good,
        f'serinus_requests_total{{{WHO}, code="503"}}': bad,
    }


def slow(counted: str, late: str) -> dict[str, str]:
    return {f"serinus_request_duration_seconds_count{{{WHO}}}": counted, f"serinus_slow_requests_total{{{WHO}}}": late}


def condition(kind: str, reason: str, values: str) -> dict[str, str]:
    labels = f'model_namespace="shop", model_deployment="fraud", type="{kind}", reason="{reason}"'
    return {f"serinus_operator_condition{{{labels}}}": values}


LEADER = {"serinus_operator_leader": "1x600"}
GOOD = "0+600x600"
# Alert, minutes, labels when it fires, series that make it fire, series that must not.
CASES: list[tuple[str, int, dict[str, str], dict[str, str], dict[str, str]]] = [
    ("SerinusErrorsFast", 70, OWNER, requests(GOOD, "0+12x600"), requests(GOOD, "0+6x600")),
    ("SerinusErrorsFast", 70, OWNER, requests(GOOD, "0+60x600"), requests(GOOD, "0+60x60 3600x600")),
    ("SerinusErrorsSlow", 390, OWNER, requests(GOOD, "0+5x600"), requests(GOOD, "0+3x600")),
    ("SerinusLatencyFast", 70, OWNER, slow(GOOD, "0+120x600"), slow(GOOD, "0+60x600")),
    ("SerinusLatencySlow", 390, OWNER, slow(GOOD, "0+50x600"), slow(GOOD, "0+30x600")),
    (
        "SerinusQueueFilling", 10, REVISION,
        {f"serinus_queue_depth{{{WHO}}}": "400x20", f"serinus_queue_limit{{{WHO}}}": "512x20"},
        {f"serinus_queue_depth{{{WHO}}}": "500x1 0x20", f"serinus_queue_limit{{{WHO}}}": "512x20"},
    ),
    (
        "SerinusRejecting", 20, OWNER,
        {**requests(GOOD), f'serinus_rejected_total{{{WHO}, reason="queue_full"}}': "0+12x60"},
        {**requests(GOOD), f'serinus_rejected_total{{{WHO}, reason="invalid"}}': "0+60x60"},
    ),
    (
        "SerinusRestarts", 30, REVISION,
        {f"serinus_model_load_seconds{{{WHO}}}": "0 1.1 1.1 0 1.2 1.2 0 1.3 1.3x60"},
        {f"serinus_model_load_seconds{{{WHO}}}": "0 1.1 1.1 0 1.2x60"},
    ),
    (
        "SerinusRestarts", 30, REVISION,
        {f"serinus_worker_restarts_total{{{WHO}}}": "0 1 2 3 4x60"},
        {f"serinus_worker_restarts_total{{{WHO}}}": "0 0 1x60"},
    ),
    (
        "SerinusCpuFallback", 10, REVISION,
        {f"serinus_engine_cpu_fallback{{{WHO}}}": "1x20"}, {f"serinus_engine_cpu_fallback{{{WHO}}}": "0x20"},
    ),
    (
        # One pod is enough; a model that is loading, or an engine beside the runtime, says nothing.
        "SerinusModelUnproved", 10, REVISION,
        {f"serinus_model_proved{{{WHO}}}": "0x20", f"serinus_model_proved{{{OTHER}}}": "1x20"},
        {f"serinus_model_proved{{{WHO}}}": "0x3 1x20", f"serinus_model_info{{{WHO}}}": "1x20"},
    ),
    (
        "SerinusNoReadyReplica", 10, {**OWNER, "type": "Ready", "reason": "MinimumReplicasUnavailable"},
        condition("Ready", "MinimumReplicasUnavailable", "0x20"),
        {**condition("Ready", "Serving", "1x20"), **condition("Ready", "MinimumReplicasUnavailable", "0x3 _x20")},
    ),
    (
        "SerinusDrift", 30, {**REVISION, "feature": "amount", "kind": "input"},
        {f'serinus_drift_psi{{{WHO}, feature="amount", kind="input"}}': "0.4x60"},
        {f'serinus_drift_psi{{{WHO}, feature="amount", kind="input"}}': "0.4x10 0.2x60"},
    ),
    (
        "SerinusPredictionLogDrops", 20, OWNER,
        {f'serinus_prediction_log_lines_total{{{WHO}, outcome="dropped"}}': "0+3x60"},
        {f'serinus_prediction_log_lines_total{{{WHO}, outcome="written"}}': "0+3x60"},
    ),
    (
        "SerinusCacheFailing", 20, OWNER,
        {
            f'serinus_response_cache_lookups_total{{{WHO}, level="shared", outcome="error"}}': "0+3x60",
            f'serinus_response_cache_lookups_total{{{WHO}, level="shared", outcome="hit"}}': "0+9x60",
        },
        {
            f'serinus_response_cache_lookups_total{{{WHO}, level="shared", outcome="error"}}': "0+3x60",
            f'serinus_response_cache_lookups_total{{{WHO}, level="shared", outcome="hit"}}': "0+90x60",
        },
    ),
    (
        "SerinusReleaseFailed", 1, {**OWNER, "type": "Stalled", "reason": "ErrorRate"},
        condition("Stalled", "ErrorRate", "1x5"), condition("Ready", "Serving", "1x5"),
    ),
    (
        "SerinusReleaseHeld", 20, {**OWNER, "type": "EvidenceMissing", "reason": "PrometheusUnavailable"},
        condition("EvidenceMissing", "PrometheusUnavailable", "1x30"),
        condition("EvidenceMissing", "PrometheusUnavailable", "1x10 _x30"),
    ),
    (
        "SerinusReleaseWaits", 150, {**OWNER, "reason": "WaitingForWebhook"},
        condition("Reconciling", "WaitingForWebhook", "1x160"), condition("Reconciling", "OutsideWindow", "1x160"),
    ),
    (
        "SerinusNotificationsLost", 30, {"reason": "NotificationFailed"},
        {'serinus_operator_events_total{reason="NotificationFailed"}': "0x10 1x60"},
        {
            'serinus_operator_events_total{reason="NotificationFailed"}': "3x60",
            'serinus_operator_events_total{reason="Promoted"}': "0+1x60",
        },
    ),
    (
        "SerinusNotificationsLost", 30, {"reason": "WebhookNotTold"},
        {'serinus_operator_events_total{reason="WebhookNotTold"}': "0x20 2x60"},
        {'serinus_operator_notifications_total{event="Failed", result="failed"}': "0+1x60"},
    ),
    ("SerinusOperatorDown", 10, {}, {"serinus_operator_leader": "0x20"}, {}),
    ("SerinusPrometheusDown", 10, {}, {"serinus_operator_prometheus_up": "0x20"},
     {"serinus_operator_prometheus_up": "1x20"}),
    ("SerinusReconcileErrors", 30, {}, {"serinus_operator_reconcile_errors_total": "0+30x60"},
     {"serinus_operator_reconcile_errors_total": "0+1x60"}),
]  # fmt: skip


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_every_alert_fires_and_holds_its_peace(tmp_path: Path) -> None:
    tests = []
    for name, minutes, labels, firing, quiet in CASES:
        for series, fires in ((firing, True), (quiet, False)):
            # The leader's series keeps the absent() of another alert quiet.
            given = series if name == "SerinusOperatorDown" and fires else {**LEADER, **series}
            expected = {**labels, "severity": alerts()[name]["labels"]["severity"]}
            shown: dict[str, Any] = {"exp_labels": expected}
            tests.append(
                {
                    "interval": "1m",
                    "name": f"{name} {'fires' if fires else 'does not fire'}",
                    "input_series": [{"series": text, "values": values} for text, values in given.items()],
                    "alert_rule_test": [
                        {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": [shown] if fires else []}
                    ],
                }
            )
    (tmp_path / "alerts.yaml").write_text(_without_annotations())
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {case[0] for case in CASES} == set(alerts()), "an alert has no case"


def _without_annotations() -> str:
    """promtool compares annotations too; what they say is looked at in the next test."""
    told = yaml.safe_load(RULES.read_text())
    for group in told["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    return yaml.safe_dump(told)


def test_the_rules_are_sound_and_every_alert_leads_to_its_runbook() -> None:
    done = subprocess.run([promtool(), "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE))
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"RUNBOOKS#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert name in headings, f"docs/runbooks.md says nothing about {name}"


def exported() -> set[str]:
    """Names of series that the runtime and the operator make, from the families that their source names."""
    families: set[str] = set()
    for folder in ("runtime-image/serinus_runtime", "operator/serinus"):
        for path in (ROOT / folder).rglob("*.py"):
            families |= set(re.findall(r'"(serinus_[a-z0-9_]+)"', path.read_text()))
    return {name + suffix for name in families for suffix in ("", "_total", "_bucket", "_sum", "_count", "_info")}


def test_every_metric_in_rules_and_dashboards_exists() -> None:
    texts = [rule["expr"] for rule in rules()]
    for path in sorted(dashboards.FOLDER.glob("*.json")):
        told = json.loads(path.read_text())
        texts += [target["expr"] for panel in told["panels"] for target in panel["targets"]]
        texts += [variable["query"]["query"] for variable in told["templating"]["list"][1:]]
    named = {name for text in texts for name in re.findall(r"\bserinus_[a-z0-9_]+", text)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {name for text in texts for name in re.findall(r"\bserinus:[a-z0-9_:]+", text)} <= recorded
    assert len(named) > 30
    assert named <= exported(), f"nothing exports {sorted(named - exported())}"


def test_every_query_of_the_dashboards_is_promql(tmp_path: Path) -> None:
    """As rules, since promtool checks those."""
    made = []
    for path in sorted(dashboards.FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", "1m").replace("$namespace", ".*")
                made.append({"record": f"q:{len(made)}", "expr": expr.replace("$deployment", ".*")})
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": made}]}))
    done = subprocess.run([promtool(), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_are_current_and_fit_the_grid() -> None:
    for name, text in dashboards.files().items():
        assert (dashboards.FOLDER / name).read_text() == text, (
            f"run: {Path(sys.executable).name} -m unit.chart.dashboards"
        )
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(text)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells


@pytest.mark.skipif(not HELM.is_file(), reason="no helm: `python -m cluster up` builds it")
def test_the_chart_carries_rules_and_dashboards_when_asked() -> None:
    plain = render()
    assert of(plain, "PrometheusRule") == of(plain, "ConfigMap") == []
    asked = render(
        "prometheusRule.enabled=true", "prometheusRule.errorBudget=0.01", "dashboards.enabled=true",
        "prometheusRule.runbookUrl=https://runbooks.example.com/serinus", "prometheusRule.labels.release=prometheus",
    )  # fmt: skip
    (rule,) = of(asked, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    text = json.dumps(rule["spec"])
    assert "0.001" not in text
    assert "14.4 * 0.01" in text
    assert "RUNBOOKS" not in text
    assert "https://runbooks.example.com/serinus#serinuserrorsfast" in text
    assert {each["alert"] for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each} == set(
        alerts()
    )
    assert "$labels.model_namespace }}" in text
    (dashes,) = of(asked, "ConfigMap")
    assert dashes["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: json.loads(told) for name, told in dashes["data"].items()} == {
        name: json.loads(told) for name, told in dashboards.files().items()
    }
    assert helm("template", "mine", str(CHART), "--set", "prometheusRule.errorBudget=2").returncode != 0
