"""Reading pods, Deployments and routes back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from serinus.objects.failures import lost_readiness, pod_failure, unschedulable
from serinus.objects.read import Children, observe, owns_replicas

REVISION = "bcdfghjklm"


def pod(container: dict[str, Any], init: bool = False) -> dict[str, Any]:
    kind = "initContainerStatuses" if init else "containerStatuses"
    return {"kind": "Pod", "metadata": {"name": "p"}, "status": {kind: [{"name": "model", **container}]}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"state": {"running": {}}}, None),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, None),
        ({"state": {"waiting": {"reason": "ErrImagePull"}}}, None),
        ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}, "ImagePullBackOff"),
        ({"state": {"waiting": {"reason": "ErrImageNeverPull"}}}, "ErrImageNeverPull"),
        ({"state": {"waiting": {"reason": "CreateContainerConfigError"}}}, "CreateContainerConfigError"),
        ({"state": ended(0)}, None),
        ({"state": ended(137, reason="OOMKilled")}, "OOMKilled"),
        ({"state": {"running": {}}, "lastState": ended(137, reason="OOMKilled"), "restartCount": 1}, "OOMKilled"),
        ({"state": ended(65, '{"reason": "DigestMismatch", "message": "expected a, got b"}')}, "DigestMismatch"),
        ({"state": ended(66, 'log line\n{"reason": "ModelLoadFailed", "message": "x"}\n')}, "ModelLoadFailed"),
        ({"state": ended(69, '{"reason": "FetchFailed", "message": "x"}'), "restartCount": 0}, None),
        ({"state": ended(69, '{"reason": "FetchFailed", "message": "x"}'), "restartCount": 2}, "FetchFailed"),
        ({"state": ended(1), "restartCount": 1}, None),
        ({"state": ended(1), "restartCount": 2}, "CrashLoop"),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(1, "boom"), "restartCount": 1},
            "CrashLoop",
        ),
    ],
)
@pytest.mark.parametrize("init", [False, True])
def test_failures_that_waiting_does_not_mend(container: dict[str, Any], reason: str | None, init: bool) -> None:
    failure = pod_failure(pod(container, init))
    assert (failure.reason if failure else None) == reason


OVER = datetime(2026, 11, 21, 9, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("container", "at"),
    [
        ({"state": {"running": {}}, "lastState": ended(137, reason="OOMKilled")}, OVER),
        ({"state": {"running": {}}, "lastState": ended(1), "restartCount": 5}, OVER),
        ({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(1), "restartCount": 5}, None),
        ({"state": ended(1), "restartCount": 2}, None),
    ],
)
def test_a_failure_that_is_over_says_when_it_was(container: dict[str, Any], at: datetime | None) -> None:
    for state in (container["state"], container.get("lastState", {})):
        if "terminated" in state:
            state["terminated"]["finishedAt"] = "2026-11-21T09:20:00Z"
    failure = pod_failure(pod(container))
    assert failure is not None
    assert failure.at == at


def test_of_several_failures_the_one_that_lasts_is_told_then_the_latest() -> None:
    def found(*pods: dict[str, Any]) -> Any:
        deployment = {
            "kind": "Deployment",
            "metadata": {"name": f"fraud-{REVISION}", "generation": 1},
            "spec": {"replicas": 2},
            "status": {},
        }
        for number, each in enumerate(pods):
            each["metadata"] = {"name": f"p{number}", "labels": {"serving.serinus.dev/revision": REVISION}}
        return observe("fraud", Children([deployment, *pods])).state(REVISION).failure

    def killed(minute: int) -> dict[str, Any]:
        last = ended(137, reason="OOMKilled")
        last["terminated"]["finishedAt"] = f"2026-11-21T09:{minute}:00Z"
        return pod({"state": {"running": {}}, "lastState": last})

    waits = pod({"state": {"waiting": {"reason": "ImagePullBackOff"}}})
    assert found(killed(20), killed(30), waits).reason == "ImagePullBackOff"
    assert found(killed(20), killed(30), killed(10)).at.minute == 30


def test_unschedulable_since() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        "lastTransitionTime": "2026-11-21T09:00:00Z",
    }
    found = unschedulable({"metadata": {}, "status": {"conditions": [condition]}})
    assert found is not None
    assert found[0].minute == 0
    assert "nvidia.com/gpu" in found[1]


STARTED, LOST = "2026-11-21T09:00:00Z", "2026-11-21T09:30:00Z"
HANGS = {"ready": False, "started": True, "state": {"running": {"startedAt": STARTED}}}


def unready(container: dict[str, Any] = HANGS, *conditions: dict[str, str], init: bool = False) -> dict[str, Any]:
    """A pod whose containers are not all ready since half past nine."""
    found = pod(container, init)
    lost = {"type": "ContainersReady", "status": "False", "lastTransitionTime": LOST}
    found["status"]["conditions"] = [*conditions] or [lost]
    return found


@pytest.mark.parametrize("init", [False, True])
def test_a_pod_that_runs_on_and_is_not_ready_any_more(init: bool) -> None:
    """An engine beside the runtime is an init container that goes on."""
    assert lost_readiness(unready(init=init)) == datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("it is ready", unready(HANGS | {"ready": True}, {"type": "ContainersReady", "status": "True"})),
        ("it has not told yet", {"metadata": {"name": "p"}, "status": {}}),
        ("it was never ready", unready(HANGS | {"state": {"running": {"startedAt": LOST}}})),
        ("it started again", unready(HANGS | {"state": {"running": {"startedAt": "2026-11-21T09:30:04Z"}}})),
        ("it waits to start again", unready(HANGS | {"state": {"waiting": {"reason": "CrashLoopBackOff"}}})),
        ("it has ended", unready(HANGS | {"state": ended(137)})),
        (
            "its node is lost: the node controller says so, and nobody else says anything",
            unready(
                HANGS | {"ready": True},
                {"type": "Ready", "status": "False", "lastTransitionTime": LOST},
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": STARTED},
            ),
        ),
        (
            "its node is drained",
            unready(
                HANGS,
                {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": LOST},
                {"type": "ContainersReady", "status": "False", "lastTransitionTime": LOST},
            ),
        ),
        ("it is deleted", unready() | {"metadata": {"name": "p", "deletionTimestamp": LOST}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pods_that_the_cluster_takes_away_or_starts_have_lost_nothing(what: str, found: dict[str, Any]) -> None:
    assert lost_readiness(found) is None, what


def test_pods_that_lost_readiness_belong_to_their_revision() -> None:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": f"fraud-{REVISION}", "generation": 1},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": 1},
    }
    hangs = unready()
    hangs["metadata"]["labels"] = {"serving.serinus.dev/revision": REVISION}
    state = observe("fraud", Children([deployment, hangs])).state(REVISION)
    assert (state.ready, set(state.unready)) == (1, {"p"})


def route(parents: list[dict[str, Any]], generation: int = 3) -> dict[str, Any]:
    backends = [{"name": f"fraud-{REVISION}", "weight": 95}, {"name": "fraud-other", "weight": 5}]
    return {
        "kind": "HTTPRoute",
        "metadata": {"name": "fraud", "generation": generation},
        "spec": {"parentRefs": [{"name": "public"}], "rules": [{"backendRefs": backends}]},
        "status": {"parents": parents},
    }


def parent(accepted: str = "True", resolved: str = "True", generation: int = 3) -> dict[str, Any]:
    return {
        "parentRef": {"name": "public"},
        "conditions": [
            {"type": "Accepted", "status": accepted, "observedGeneration": generation, "message": "why"},
            {"type": "ResolvedRefs", "status": resolved, "observedGeneration": generation, "message": "why"},
        ],
    }


@pytest.mark.parametrize(
    ("parents", "accepted", "says"),
    [
        ([parent()], True, ""),
        ([], False, "does the Gateway exist"),
        ([parent(accepted="False")], False, "Accepted is False: why"),
        ([parent(resolved="False")], False, "ResolvedRefs is False"),
        ([parent(generation=2)], False, "has not seen this generation"),
    ],
)
def test_a_route_counts_only_when_its_present_generation_is_accepted(
    parents: list[dict[str, Any]], accepted: bool, says: str
) -> None:
    observed = observe("fraud", Children([route(parents)]))
    assert observed.route.accepted is accepted
    assert says in observed.route.message
    assert observed.route.weights == {REVISION: 95}


def test_terminating_pods_tell_nothing() -> None:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": f"fraud-{REVISION}", "generation": 1},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": 2},
    }
    crashed = pod({"state": ended(137, reason="OOMKilled")})
    crashed["metadata"] |= {"labels": {"serving.serinus.dev/revision": REVISION}, "deletionTimestamp": "now"}
    state = observe("fraud", Children([deployment, crashed])).state(REVISION)
    assert (state.desired, state.ready, state.failure) == (2, 2, None)


def test_a_quota_that_forbids_pods_is_a_failure() -> None:
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": f"fraud-{REVISION}", "generation": 1},
        "spec": {"replicas": 2},
        "status": {
            "conditions": [
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
            ]
        },
    }
    state = observe("fraud", Children([deployment])).state(REVISION)
    assert state.failure is not None
    assert state.failure.reason == "FailedCreate"


def managed(*owners: tuple[str, str, str]) -> dict[str, Any]:
    fields = [
        {"manager": name, "operation": how, "subresource": sub, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for name, how, sub in owners
    ]
    return {"metadata": {"managedFields": fields}}


def test_replicas_stay_ours_until_another_owns_them() -> None:
    assert owns_replicas(managed(("serinus", "Apply", "")))
    assert not owns_replicas(managed(("serinus", "Apply", ""), ("kube-controller-manager", "Update", "scale")))
    assert not owns_replicas(managed())
