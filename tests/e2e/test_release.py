"""Releases on a real node: gateway, Prometheus, users - and an operator that is killed."""

from __future__ import annotations

import json
import time

import pytest

from cluster import Provider
from fraud.records import read
from support.changes import Watch
from support.eventually import eventually
from support.releases import NAME, Load, Operator, Release, failed, go_live, writes

pytestmark = pytest.mark.needs("pods", "gateway", "prometheus")


def candidate_weights(watch: Watch, revision: str) -> list[int]:
    seen = [weights.get(revision, 0) for weights in watch.routes]
    return [weight for i, weight in enumerate(seen) if i == 0 or weight != seen[i - 1]]


def test_promotion_with_the_operator_killed_at_every_step(release: Release, operator: Operator, load: Load) -> None:
    """kill -9 whenever phase, step or weight changes: the outcome is the same, and no weight leaves its order."""
    go_live(release, load)

    def kill(_: tuple[str, int, int]) -> None:
        operator.kill()
        operator.start()

    watch = release.watch()
    watch.on_change = kill
    with watch:
        release.apply("v2")
        status = release.wait_live("v2", 300)
    records = load.stop()
    revision = status["live"]["revision"]
    assert operator.starts >= 5
    assert candidate_weights(watch, revision) == [0, 5, 50, 100]
    assert status["lastRelease"]["outcome"] == "Promoted"
    assert status["previous"]["version"] == "v1"
    assert failed(records) == []
    assert {record.version for record in records} >= {"v1", "v2"}


def test_broken_versions(release: Release, operator: Operator, load: Load) -> None:
    """v3 is slow for some users and is rolled back, its operator killed meanwhile; v4 and v5 never see a user."""
    slo = {"p99": "80ms", "errorRate": "0.1%"}
    go_live(release, load, slo=slo)
    killed: list[tuple[str, int, int]] = []

    def kill(state: tuple[str, int, int]) -> None:
        if state[0] == "RollingBack" and not killed:
            killed.append(state)
            operator.kill()
            operator.start()

    watch = release.watch()
    watch.on_change = kill
    steps = {"steps": [{"weight": 20, "hold": "5m", "minRequests": 100}], "rollbackWindow": "1h"}
    with watch:
        release.apply("v3", slo=slo, release=steps)
        status = release.wait_ended("v3")
    assert killed
    last = status["lastRelease"]
    assert (last["outcome"], last["reason"]) == ("RolledBack", "LatencyTooHigh")
    assert status["live"]["version"] == "v1"
    assert candidate_weights(watch, last["revision"]) == [0, 20, 0]
    assert "RolledBack" in release.events()

    for version, reason in (("v4", "ModelLoadFailed"), ("v5", "DigestMismatch")):
        release.apply(version, slo=slo)
        last = release.wait_ended(version)["lastRelease"]
        assert (last["outcome"], last["reason"]) == ("Failed", reason)
        assert last.get("requests", 0) == 0
    records = load.stop()
    assert not {record.version for record in records} & {"v4", "v5"}
    assert failed(records) == []

    release.apply("v1", slo=slo)
    status = release.wait(lambda s: s["phase"] == "Live")
    assert not [c for c in status["conditions"] if c["type"] == "Stalled"]


@pytest.mark.needs("faults")
def test_prometheus_away_for_a_minute(release: Release, operator: Operator, load: Load, provider: Provider) -> None:
    """Held at its weight, told in a condition, resumed by itself; nobody is rolled back because a monitor is ill."""
    go_live(release, load)
    steps = {"steps": [{"weight": 5, "hold": "30s", "minRequests": 10}], "rollbackWindow": "1h"}
    watch = release.watch()
    with watch:
        release.apply("v2", release=steps)
        release.wait(lambda s: (s.get("release") or {}).get("weight") == 5)
        provider.stop_component("prometheus")
        try:
            status = release.wait(lambda s: any(c["type"] == "EvidenceMissing" for c in s["conditions"]))
            assert "Prometheus" in status["release"]["message"]
            until = time.monotonic() + 60
            while time.monotonic() < until:
                assert release.status()["release"]["weight"] == 5
                time.sleep(1)
        finally:
            provider.start_component("prometheus")
        status = release.wait_live("v2")
    assert candidate_weights(watch, status["live"]["revision"]) == [0, 5, 100]
    assert failed(load.stop()) == []


def test_a_promoted_version_that_runs_on_and_is_not_ready_any_more(
    release: Release, operator: Operator, load: Load
) -> None:
    """No container ends and nobody counts an error, but no pod takes requests: the predecessor is back."""
    keys = "users key-of-the-users\nhands key-of-the-hands scopes=control\n"
    release.kubectl("create", "secret", "generic", "clients", f"--from-literal=keys={keys}")
    runtime = {
        "apiKeys": {"secretName": "clients"},
        "env": [{"name": "SERINUS_MODEL_CONTROL", "value": "explicit"}],
        "queue": {"maxLength": 512, "timeout": "10s"},
    }
    load.key = "key-of-the-users"
    go_live(release, load, runtime=runtime)
    release.apply("v2", runtime=runtime)
    revision = release.wait_live("v2")["live"]["revision"]
    pods = json.loads(release.kubectl("get", "pods", "-l", f"serving.serinus.dev/revision={revision}", "-o", "json"))
    unload = (
        "import urllib.request as u; "
        f"u.urlopen(u.Request('http://127.0.0.1:8080/v2/repository/models/{NAME}/unload', b'', "
        "{'X-API-Key': 'key-of-the-hands'}))"
    )
    began = time.time()
    for pod in pods["items"]:
        release.kubectl("exec", pod["metadata"]["name"], "-c", "model", "--", "/opt/serinus/bin/python", "-c", unload)
    status = release.wait(lambda s: s["lastRelease"]["outcome"] == "RolledBack" and s["live"]["version"] == "v1")
    ended = time.time()

    def served() -> None:
        assert any(record.at > ended and record.version == "v1" for record in read(load.out))

    eventually(served)
    assert (status["lastRelease"]["version"], status["lastRelease"]["reason"]) == ("v2", "ReadinessLost")
    assert "0 of 2 pods are ready" in status["lastRelease"]["message"]
    assert "unavailableSince" not in status.get("watch", {})
    assert not [record for record in failed(load.stop()) if not began - 1 < record.at < ended + 1]


def test_edits_are_repaired_and_a_settled_release_is_left_alone(
    release: Release, operator: Operator, load: Load
) -> None:
    """Edits of owned objects are undone; afterwards, under load, nothing at all is written for two minutes."""
    release.apply("v1")
    status = release.wait_live("v1")
    child = f"{NAME}-{status['live']['revision']}"

    release.kubectl("label", "service", child, "serving.serinus.dev/revision=other", "--overwrite")
    release.kubectl("scale", "deployment", child, "--replicas=1")
    release.kubectl("delete", "pdb", NAME)
    weights = '[{"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": 7}]'
    release.kubectl("patch", "httproute", NAME, "--type=json", "-p", weights)

    def repaired() -> None:
        service, deployment = release.get("service", child), release.get("deployment", child)
        route, budget = release.get("httproute"), release.get("pdb")
        assert service is not None
        assert service["metadata"]["labels"]["serving.serinus.dev/revision"] == status["live"]["revision"]
        assert deployment is not None
        assert deployment["spec"]["replicas"] == 2
        assert deployment["status"].get("readyReplicas") == 2
        assert route is not None
        assert route["spec"]["rules"][0]["backendRefs"][0]["weight"] == 100
        assert budget is not None

    eventually(repaired, 180)
    release.kubectl("delete", "deployment", child)
    eventually(repaired, 180)
    release.wait_live("v1")

    audit = release.cluster.audit_log
    assert audit is not None

    load.start()

    def settled() -> None:
        """Longer than the operator's look at Prometheus between releases: the columns have their first figures."""
        assert release.status().get("metrics", {}).get("p99")
        assert writes(audit, release.namespace, time.time() - 35) == []

    eventually(settled, 300, interval=2)
    since = time.time()
    time.sleep(120)  # what is asserted is that nothing happens: there is no condition to wait for
    assert writes(audit, release.namespace, since) == []
    assert operator.stop() == 0


def test_a_node_without_room_fails_the_release_and_nothing_else(
    release: Release, operator: Operator, load: Load
) -> None:
    """A GPU that does not exist: the release fails with the scheduler's words, the live version serves on."""
    go_live(release, load)
    runtime = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    plan = {"steps": [{"weight": 5}], "unschedulableTimeout": "5s"}
    release.apply("v2", runtime=runtime, release=plan)
    last = release.wait_ended("v2")["lastRelease"]
    assert (last["outcome"], last["reason"]) == ("Failed", "Unschedulable")
    assert "nvidia.com/gpu" in last["message"]
    assert failed(load.stop()) == []
