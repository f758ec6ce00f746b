"""What Kubernetes warns of, in `explain`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from serinus.cli import explain
from serinus.cli.picture import Picture
from serinus.cli.warnings import ADVICE, MOST, RECENT, of_children, warned
from serinus.objects.context import Object
from unit.cli.test_cli import picture
from unit.release.world import with_live


def event(shown: Picture, reason: str, ago: float, uid: str = "p", **more: Any) -> Object:
    """A warning about the pod `uid`, `ago` seconds before the picture was taken."""
    at = (shown.now - timedelta(seconds=ago)).isoformat()
    regarding = {"kind": "Pod", "name": f"pod-{uid}", "uid": uid}
    return {
        "type": "Warning", "reason": reason, "note": f"{reason} it is", "regarding": regarding, "eventTime": at,
        "metadata": {"creationTimestamp": at}, **more,
    }  # fmt: skip


def child(uid: str, **conditions: str) -> Object:
    """A pod or an autoscaler with these conditions."""
    told = [{"type": name, "status": status} for name, status in conditions.items()]
    return {"metadata": {"uid": uid}, "status": {"conditions": told}}


def test_a_warning_comes_with_a_cause_and_an_action_of_its_own() -> None:
    shown = picture(with_live())
    shown = replace(shown, warnings=(event(shown, "FailedMount", 30),))
    (found,) = explain.findings(shown)
    assert found.symptom == "FailedMount: Pod pod-p: FailedMount it is (30s ago)"
    assert "Secret" in found.cause
    assert "kubectl describe mdep" not in found.action


def test_one_line_for_a_reason_the_newest_and_how_often() -> None:
    shown = picture(with_live())
    older = event(shown, "Unhealthy", 600, "a")
    at = (shown.now - timedelta(seconds=60)).isoformat()
    # Seen first long ago, and last a minute ago.
    series = event(shown, "Unhealthy", 5000, "b", series={"count": 7, "lastObservedTime": at})
    found = warned(replace(shown, warnings=(series, older)))
    assert found == [("Unhealthy", "Pod pod-b: Unhealthy it is (7 times, last 60s ago)")]


def test_what_is_long_ago_is_not_told_and_never_more_than_a_few() -> None:
    shown = picture(with_live())
    old = event(shown, "Evicted", RECENT.total_seconds() + 1)
    many = [event(shown, f"Reason{number}", number) for number in range(MOST + 3)]
    found = warned(replace(shown, warnings=(old, *many)))
    assert [reason for reason, _ in found] == [f"Reason{number}" for number in range(MOST)]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [({"Ready": "False"}, True), ({}, True), ({"Ready": "True"}, False), ({"ScalingActive": "True"}, False)],
)
def test_what_is_well_by_now_is_not_told(conditions: dict[str, str], told: bool) -> None:
    shown = picture(with_live())
    found = of_children([event(shown, "Unhealthy", 10)], [child("p", **conditions)])
    assert bool(found) == told


def test_only_warnings_and_only_of_what_belongs_to_it() -> None:
    shown = picture(with_live())
    normal = {**event(shown, "Scheduled", 10), "type": "Normal"}
    others = event(shown, "FailedMount", 10, "somebody else's")
    unknown = {**event(shown, "FailedMount", 10), "regarding": None}
    assert of_children([normal, others, unknown], [child("p"), {"metadata": {}}]) == ()


def test_advice_is_whole() -> None:
    assert all(cause and action for cause, action in ADVICE.values())
