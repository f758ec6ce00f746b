"""Three pains in one release under load, on a real API server and gateway.

5. A promotion copies the version and the copy fails. 7. Other people's fields of the route are clobbered. 8. GitOps and
the controller fight over weights, and the one who applies the same YAML again stops or resets a release.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.eventually import eventually
from support.releases import NAME, Load, Operator, Release, failed, go_live

pytestmark = pytest.mark.needs("pods", "gateway", "prometheus")
NOTE = "external-dns.alpha.kubernetes.io/ttl"


def pods(release: Release, revision: str) -> dict[str, int]:
    """Pods of a revision by uid, with how often their containers were restarted."""
    selector = f"serving.serinus.dev/revision={revision}"
    found = json.loads(release.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return {
        pod["metadata"]["uid"]: sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
        for pod in found
    }


def route_without_weights(release: Release) -> Any:
    """What of the route must not change: all but weights and backends."""
    found = release.get("httproute")
    assert found is not None
    rules = [{key: value for key, value in rule.items() if key != "backendRefs"} for rule in found["spec"]["rules"]]
    meta = {key: found["metadata"].get(key) for key in ("name", "uid", "annotations")}
    return meta, found["spec"]["hostnames"], found["spec"]["parentRefs"], rules


def test_pods_fields_and_yaml_of_others_outlive_a_release(release: Release, operator: Operator, load: Load) -> None:
    go_live(release, load)
    # Somebody else's tool writes on the route, and the user's own YAML is what git has.
    release.kubectl("annotate", "httproute", NAME, f"{NOTE}=60")
    before = route_without_weights(release)
    release.apply("v2")
    held = release.wait(lambda s: (s.get("release") or {}).get("weight") == 5)
    candidate = held["release"]["revision"]
    judged = pods(release, candidate)
    assert len(judged) == 2

    # GitOps applies what git has, again and again: nothing of it is ours, so nothing conflicts and nothing restarts.
    owner = release.get("mdep")
    assert owner is not None
    del owner["status"]
    owner["metadata"] = {key: owner["metadata"][key] for key in ("name", "namespace")}
    for _ in range(3):
        done = release.kubectl("apply", "--server-side", "--field-manager=gitops", "-f", "-", stdin=json.dumps(owner))
        assert "serverside-applied" in done
        release.apply("v2")
    now = json.loads(release.kubectl("get", "mdep", NAME, "-o", "json", "--show-managed-fields"))
    assert now["metadata"]["generation"] == held["observedGeneration"], "the same YAML made a new generation"
    ours = [each for each in now["metadata"]["managedFields"] if "serinus" in each["manager"]]
    assert all("f:spec" not in each["fieldsV1"] for each in ours), "the operator writes into the spec"

    status = release.wait_live("v2")
    assert status["live"]["revision"] == candidate
    assert status["lastRelease"]["startedAt"] == held["release"]["startedAt"], "applied again, released again"

    def settled() -> None:
        found = pods(release, candidate)
        assert judged.keys() <= found.keys(), "the pods that were judged are not those that serve"
        assert not any(found.values())

    eventually(settled, 20)
    assert route_without_weights(release) == before
    assert before[0]["annotations"] == {NOTE: "60"}
    assert failed(load.stop()) == []
