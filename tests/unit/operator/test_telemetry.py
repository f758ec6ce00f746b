"""What the operator's metrics say of conditions."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import generate_latest

from serinus.api.status import Condition
from serinus.telemetry import REGISTRY, Conditions


def condition(kind: str, status: str, reason: str) -> Condition:
    return Condition(
        type=kind, status=status, reason=reason, message="m", last_transition_time=datetime(2026, 1, 1, tzinfo=UTC)
    )


def shown() -> dict[str, str]:
    lines = [line for line in generate_latest(REGISTRY).decode().splitlines() if "serinus_operator_condition{" in line]
    return {line.rpartition(" ")[0].split('model_namespace="shop"')[1]: line.rpartition(" ")[2] for line in lines}


def test_a_condition_is_shown_until_its_reason_is_another() -> None:
    conditions = Conditions()
    key = ("shop", "fraud")
    conditions.show(key, [condition("Ready", "True", "Serving")])
    assert shown() == {',reason="Serving",type="Ready"}': "1.0"}
    conditions.show(key, [condition("Ready", "False", "NoPods"), condition("Stalled", "True", "ErrorRate")])
    assert shown() == {',reason="NoPods",type="Ready"}': "0.0", ',reason="ErrorRate",type="Stalled"}': "1.0"}
    conditions.forget(key)
    conditions.forget(key)
    assert shown() == {}
