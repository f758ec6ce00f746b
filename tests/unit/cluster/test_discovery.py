"""Which pods are scraped, and under which labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.discovery import Targets, target


def pod(
    uid: str = "1", phase: str = "Running", address: str | None = "10.98.0.7", **annotations: str
) -> dict[str, Any]:
    wishes = {"prometheus.io/scrape": "true", "prometheus.io/port": "8082"}
    wishes |= {f"prometheus.io/{key}": value for key, value in annotations.items()}
    metadata = {"uid": uid, "namespace": "shop", "name": f"web-{uid}", "annotations": wishes}
    return {"metadata": metadata, "status": {"phase": phase, "podIP": address}}


def test_annotations_become_a_target() -> None:
    assert target(pod(path="/stats")) == {
        "targets": ["10.98.0.7:8082"],
        "labels": {"__metrics_path__": "/stats", "namespace": "shop", "pod": "web-1"},
    }


@pytest.mark.parametrize(
    "other",
    [pod(scrape="false"), pod(port=""), pod(phase="Pending"), pod(phase="Succeeded"), pod(address=None)],
)
def test_pods_without_wish_or_address_are_left_out(other: dict[str, Any]) -> None:
    assert target(other) is None


def test_file_follows_the_events(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    targets = Targets(file)
    targets.replace([pod("1"), pod("2", phase="Pending")])
    assert len(json.loads(file.read_text())) == 1
    targets.event("MODIFIED", pod("2"))
    assert len(json.loads(file.read_text())) == 2
    targets.event("DELETED", pod("1"))
    assert json.loads(file.read_text())[0]["labels"]["pod"] == "web-2"
    targets.event("DELETED", pod("9"))
    assert len(json.loads(file.read_text())) == 1
