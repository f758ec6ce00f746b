"""A made-up run of the demo: known numbers for the report and the picture."""

from __future__ import annotations

import random

import pytest

from fraud.records import Record
from fraud.story import Snapshot, Story

START = 1_000_000.0
RATE = 200


@pytest.fixture(scope="session")
def run() -> tuple[Story, list[Record]]:
    """v2 applied at 20 s and promoted at 85 s, v3 applied at 105 s and gone at 122 s, v4 and v5 rejected."""
    return make_story(), make_records()


def make_story() -> Story:
    old = {"last_version": "v1", "last_outcome": "Promoted", "last_finished": "t0"}
    two = {"last_version": "v2", "last_outcome": "Promoted", "last_reason": "AllStepsPassed", "last_finished": "t2"}
    three = {"last_version": "v3", "last_outcome": "RolledBack", "last_reason": "SlowRequests", "last_finished": "t3"}
    four = {"last_version": "v4", "last_outcome": "Failed", "last_reason": "ModelLoadFailed", "last_finished": "t4"}
    five = {"last_version": "v5", "last_outcome": "Failed", "last_reason": "DigestMismatch", "last_finished": "t5"}
    rows: list[tuple[float, str, str, str, int, dict[str, str]]] = [
        (-5, "Live", "v1", "", 0, old),
        (20.2, "Starting", "v1", "v2", 0, old),
        (32, "Canary", "v1", "v2", 5, old),
        (53, "Canary", "v1", "v2", 25, old),
        (69, "Canary", "v1", "v2", 50, old),
        (84.5, "Promoting", "v1", "v2", 100, old),
        (85, "Live", "v2", "", 0, two),
        (105.2, "Starting", "v2", "v3", 0, two),
        (115, "Canary", "v2", "v3", 5, two),
        (121, "RollingBack", "v2", "v3", 0, two),
        (122, "RolledBack", "v2", "", 0, three),
        (140.2, "Starting", "v2", "v4", 0, three),
        (148, "Failed", "v2", "", 0, four),
        (150.2, "Starting", "v2", "v5", 0, four),
        (156, "Failed", "v2", "", 0, five),
    ]
    snapshots = [
        Snapshot(START + at, phase=phase, live=live, candidate=candidate, weight=weight, ready=True, **last)
        for at, phase, live, candidate, weight, last in rows
    ]
    applied = {"v1": -20.0, "v2": 20.0, "v3": 105.0, "v4": 140.0, "v5": 150.0}
    events = [(START + 121, "RollingBack", "12 of 60 requests slower than 50 ms")]
    return Story(snapshots, {v: START + at for v, at in applied.items()}, events)


def make_records() -> list[Record]:
    dice = random.Random(1)
    result = []
    for number in range(165 * RATE):
        at = number / RATE
        version = _who(at, dice.random())
        latency = dice.lognormvariate(1.6, 0.35)
        if version == "v3" and dice.random() < 0.1:
            latency += dice.uniform(90, 180)
        result.append(Record(START + at, latency, 200, "", version, f"r-{version}", "keepalive", 1))
    return result


def _who(at: float, share: float) -> str:
    for start, end, old, new, weight in (
        (32, 53, "v1", "v2", 0.05),
        (53, 69, "v1", "v2", 0.25),
        (69, 84.5, "v1", "v2", 0.5),
        (115, 121.2, "v2", "v3", 0.05),
    ):
        if start <= at < end:
            return new if share < weight else old
    return "v1" if at < 84.5 else "v2"
