"""What the operator says about itself: metrics and structured logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serinus.api.status import Condition

REGISTRY = CollectorRegistry()

RECONCILE_SECONDS = Histogram(
    "serinus_operator_reconcile_duration_seconds",
    "Time of one reconcile.",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECONCILE_ERRORS = Counter("serinus_operator_reconcile_errors", "Reconciles that failed.", registry=REGISTRY)
QUEUE_LENGTH = Gauge("serinus_operator_queue_length", "Keys waiting or being worked on.", registry=REGISTRY)
LEADER = Gauge("serinus_operator_leader", "1 on the replica that works.", registry=REGISTRY)
API_WRITES = Counter("serinus_operator_api_writes", "Writes to cluster objects.", registry=REGISTRY)
STATUS_WRITES = Counter("serinus_operator_status_writes", "Writes of ModelDeployment status.", registry=REGISTRY)
DEPLOYMENTS = Gauge("serinus_operator_modeldeployments", "ModelDeployments by phase.", ["phase"], registry=REGISTRY)
CANDIDATE_WEIGHT = Gauge(
    "serinus_operator_candidate_weight",
    "Percent of the users' requests that the candidate gets.",
    ["model_namespace", "model_deployment"],
    registry=REGISTRY,
)
CONDITIONS = Gauge(
    "serinus_operator_condition",
    "Conditions of ModelDeployments: 1 while true, 0 while not.",
    ["model_namespace", "model_deployment", "type", "reason"],
    registry=REGISTRY,
)
EVENTS = Counter("serinus_operator_events", "Transitions told as Kubernetes Events.", ["reason"], registry=REGISTRY)
LOST = ("NotificationFailed", "WebhookNotTold")
"""Events of what somebody was to be told and never heard. At 0 from the start: the first one must be an increase."""
for _reason in LOST:
    EVENTS.labels(_reason)
ERRANDS = Counter(
    "serinus_operator_errands", "Smoke tests, webhook calls and the like that ended.", ["kind", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
NOTIFICATIONS = Counter(
    "serinus_operator_notifications",
    "Attempts to tell people of releases; result is sent, failed (tried again) or refused (not tried again).",
    ["event", "result"],
    registry=REGISTRY,
)
FROZEN = Gauge("serinus_operator_frozen", "1 while somebody has frozen releases.", registry=REGISTRY)
PROMETHEUS_UP = Gauge("serinus_operator_prometheus_up", "1 while Prometheus answers.", registry=REGISTRY)
SNAPSHOTS = Counter("serinus_operator_snapshots", "Snapshots asked of Prometheus.", ["result"], registry=REGISTRY)
SNAPSHOT_SECONDS = Histogram("serinus_operator_snapshot_duration_seconds", "Time of one snapshot.", registry=REGISTRY)


class Conditions:
    """Keeps `serinus_operator_condition` as the statuses are: a reason that is over disappears."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], set[tuple[str, str]]] = {}

    def show(self, key: tuple[str, str], conditions: Iterable[Condition]) -> None:
        """Shows the conditions of the ModelDeployment `key` (namespace, name), and no others of it."""
        now = {(each.type, each.reason): each.status == "True" for each in conditions}
        for gone in self._shown.get(key, set()) - now.keys():
            CONDITIONS.remove(*key, *gone)
        for kind, true in now.items():
            CONDITIONS.labels(*key, *kind).set(true)
        self._shown[key] = set(now)

    def forget(self, key: tuple[str, str]) -> None:
        """The ModelDeployment is gone."""
        self.show(key, ())
        self._shown.pop(key, None)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the object it is about."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if about := getattr(record, "object", None):
            entry["object"] = about
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        about = getattr(record, "object", None)
        text = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:<7} {f'[{about}] ' if about else ''}"
        text += record.getMessage()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def setup_logging(style: str) -> None:
    """Logs to standard error as `json` or `text`."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
