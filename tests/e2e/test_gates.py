"""What stands before users, on a real node: a smoke test with parity, and the freeze switch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import ClusterInfo
from fraud.records import read
from support import faults
from support.eventually import eventually
from support.releases import Load, Operator, Release, failed

pytestmark = pytest.mark.needs("pods", "gateway", "prometheus")
STEPS = [{"weight": 50, "hold": "2s", "minRequests": 20}]


@pytest.fixture
def release(images: None, cluster: ClusterInfo, namespace: str) -> Release:
    """A namespace whose store has bad versions of the model that is live."""
    built = faults.built()
    models = {name: built[name] for name in ("v1", "v2", "errors-100", "disagreeing")}
    made = Release(cluster, namespace, models)
    made.without_other_operators()
    made.kubectl("apply", "--server-side", "-f", str(Path(__file__).parents[2] / "crds"))
    made.install_store()
    return made


@pytest.fixture
def frozen(release: Release) -> Iterator[list[str]]:
    """Arguments of kubectl that name the switch, which only this namespace heeds; it is off at the end."""
    switch = ["-n", "default", "configmap", "serinus-freeze"]
    yield switch
    release.kubectl("delete", *switch, "--ignore-not-found")


def test_no_user_meets_a_version_that_fails_its_smoke_test(
    release: Release, operator: Operator, load: Load, frozen: list[str]
) -> None:
    release.apply("v2")
    release.wait_live("v2")
    load.start()

    def served() -> None:
        assert any(not record.failed for record in read(load.out)), "no user was answered yet"

    eventually(served, 30)
    test = {"requests": 60, "maxDisagreement": "5%"}
    gates = {"smokeTest": test, "steps": STEPS, "rollbackWindow": "1h"}
    with release.watch() as watch:
        for version, said in (("errors-100", "of 60 requests failed: 500"), ("disagreeing", "differ from the live")):
            release.apply(version, release=gates)
            status = release.wait_ended(version)
            last = status["lastRelease"]
            assert (last["outcome"], last["reason"]) == ("Failed", "SmokeTestFailed"), last
            assert said in last["message"]
            assert last["requests"] == 0
            assert status["live"]["version"] == "v2"
        bad = set(status["failedRevisions"])
    assert all(weights.get(revision, 0) == 0 for weights in watch.routes for revision in bad)
    assert "SmokeTestFailed" in release.events()

    release.kubectl("create", *frozen, "--from-literal=reason=a test", f"--from-literal=namespaces={release.namespace}")
    # The operator looks every five seconds, and what it saw last must have been the switch.
    eventually(lambda: _logged(operator, "releases are frozen: a test"), 30)
    # Another model may answer otherwise: parity is measured, and decides nothing.
    release.apply("v1", release={**gates, "smokeTest": {"requests": 60}})
    status = release.wait(lambda s: s.get("phase") == "Waiting", 30)
    reasons = {condition["type"]: condition["reason"] for condition in status["conditions"]}
    assert reasons["Reconciling"] == "Frozen"
    assert reasons["Ready"] == "Serving"
    release.kubectl("delete", *frozen)

    status = release.wait_live("v1", 240)
    assert "60 requests (generated), 0 failed" in status["lastRelease"]["smokeTest"]
    records = load.stop()
    assert failed(records) == []
    assert {record.version for record in records if record.version} == {"v1", "v2"}


def _logged(operator: Operator, text: str) -> None:
    assert text in operator.log.read_text()
