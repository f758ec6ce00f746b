"""A shadow on a real node: a real gateway mirrors, a real joiner compares, and users notice nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import ClusterInfo
from fraud import train
from fraud.digest import write_sums
from fraud.train import Built
from support import faults
from support.eventually import eventually
from support.releases import NAME, Load, Operator, Release, failed

pytestmark = pytest.mark.needs("pods", "gateway", "prometheus")

AGREEING = "v2-again"
HUB = f"{NAME}-shadow-hub"
SAMPLES = {"keep": 5, "redact": ["amount"]}
SHADOW: dict[str, Any] = {"percent": 50, "duration": "15s", "minPairs": 100, "samples": SAMPLES}
RELEASE = {"steps": [{"shadow": SHADOW}, {"weight": 50, "hold": "3s", "minRequests": 30}], "rollbackWindow": "1h"}


@pytest.fixture
def release(images: None, cluster: ClusterInfo, namespace: str, tmp_path: Path) -> Release:
    """With a version that is v2 under another digest, and one that turns the scores of some requests around."""
    versions = train.cached()
    again = tmp_path / AGREEING
    shutil.copytree(versions["v2"].directory, again)
    about = json.loads((again / "model.json").read_text())
    (again / "model.json").write_text(json.dumps({**about, "version": AGREEING}))
    (again / "SHA256SUMS").unlink(missing_ok=True)
    models: dict[str, Built] = {
        "v2": versions["v2"],
        AGREEING: replace(versions["v2"], version=AGREEING, directory=again, digest=write_sums(again)),
        "disagreeing": faults.built()["disagreeing"],
    }
    made = Release(cluster, namespace, models)
    made.without_other_operators()
    made.kubectl("apply", "--server-side", "-f", str(Path(__file__).parents[2] / "crds"))
    made.install_store()
    return made


def live(release: Release, load: Load) -> None:
    """v2 is live and users are being answered."""
    release.apply("v2", release=RELEASE)
    release.wait_live("v2")
    load.start()


def report(release: Release) -> dict[str, Any]:
    path = f"/api/v1/namespaces/{release.namespace}/services/{HUB}:8082/proxy/report"
    found: dict[str, Any] = json.loads(release.kubectl("get", "--raw", path))
    return found


def filters(release: Release) -> list[str]:
    route = release.get("httproute") or {"spec": {"rules": []}}
    return [each["type"] for rule in route["spec"]["rules"] for each in rule.get("filters", [])]


def nothing_left(release: Release) -> None:
    assert filters(release) == []
    assert release.get("deployment", HUB) is None
    assert release.get("service", HUB) is None


def test_an_agreeing_candidate_passes_its_shadow_and_is_promoted(
    release: Release, operator: Operator, load: Load
) -> None:
    live(release, load)
    release.apply(AGREEING, release=RELEASE)
    status = release.wait(lambda s: s.get("phase") == "Shadowing" and s["release"].get("shadow", {}).get("pairs", 0))
    assert status["weight"] == "0%"
    assert filters(release) == ["RequestMirror"] * 2
    text = release.kubectl("get", "mdep", NAME)
    assert "Shadowing" in text

    def sampled() -> dict[str, Any]:
        found = report(release)
        assert found["outcomes"]["agreed"] > 0, found
        assert found["samples"], found
        assert found["waiting"] > 0, "half of the requests are not mirrored and wait in vain"
        return found

    found = eventually(sampled, 30)
    assert found["pods"] == {"live": 2, "candidate": 2}
    assert found["outcomes"]["disagreed"] == 0
    assert "[redacted]" in json.dumps(found["samples"])

    status = release.wait_live(AGREEING, 240)
    records = load.stop()
    assert failed(records) == []
    shadow = status["lastRelease"]["shadow"]
    print("shadow:", json.dumps(shadow))
    assert status["lastRelease"]["outcome"] == "Promoted"
    assert shadow["pairs"] >= 100
    assert shadow.get("disagreements", 0) == 0
    eventually(lambda: nothing_left(release), 60)


def test_a_disagreeing_candidate_is_rejected_and_no_user_ever_sees_it(
    release: Release, operator: Operator, load: Load
) -> None:
    live(release, load)
    release.apply("disagreeing", release=RELEASE)
    status = release.wait_ended("disagreeing", 240)
    records = load.stop()
    last = status["lastRelease"]
    print("shadow:", json.dumps(last["shadow"]), last["message"])
    assert (last["outcome"], last["reason"]) == ("Failed", "Disagreement")
    assert last.get("requests", 0) == 0
    assert status["live"]["version"] == "v2"
    assert {record.version for record in records if not record.failed} == {"v2"}
    assert failed(records) == []
    assert "ReleaseFailed" in release.events()
    eventually(lambda: nothing_left(release), 60)
