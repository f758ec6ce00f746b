"""What exists in the cluster while a shadow lasts, and what of it is left afterwards: nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from serinus.api.shadow import Shadow
from serinus.objects import names
from serinus.objects.context import Settings
from serinus.objects.read import Children, observe
from serinus.objects.render import render
from serinus.release.observed import Mirror, Plan
from serinus_runtime.commands.join import read
from serinus_runtime.shadow.admission import default_readers
from unit.objects.test_render import context, one, plan

SHADOW = Shadow.model_validate({"percent": 7, "tolerance": 0.5, "samples": {"keep": 3, "redact": ["card"]}})


def shadowed(**changes: Any) -> Plan:
    found = plan(context(**changes))
    revision = found.revisions[0].revision.name
    return dataclasses.replace(
        found, weights={revision: 100, "candidate1": 0}, mirror=Mirror(revision, "candidate1", SHADOW)
    )


def test_the_route_mirrors_a_share_of_http_and_grpc_to_the_candidate_only() -> None:
    route = one(render(context(), shadowed(), Children()), "HTTPRoute")
    http, grpc = route["spec"]["rules"]
    assert [rule["filters"][0]["type"] for rule in (http, grpc)] == ["RequestMirror"] * 2
    assert http["filters"][0]["requestMirror"] == {
        "backendRef": {"group": "", "kind": "Service", "name": "fraud-candidate1", "port": 80},
        "percent": 7,
    }
    assert grpc["filters"][0]["requestMirror"]["backendRef"]["port"] == 8081
    assert [backend["weight"] for backend in http["backendRefs"]] == [100, 0]


def test_without_a_shadow_nothing_of_it_is_there() -> None:
    desired = render(context(), plan(context()), Children())
    assert all("filters" not in rule for rule in one(desired, "HTTPRoute")["spec"]["rules"])
    assert not [obj for obj in desired.apply if "shadow" in obj["metadata"]["name"]]


def test_when_it_ends_the_mirror_goes_first_and_then_the_joiner() -> None:
    before = render(context(), shadowed(), Children())
    services = [{"kind": "Service", "metadata": {"name": "fraud-candidate1"}}]
    children = Children([*before.apply, *services])
    after = render(context(), plan(context()), children)
    assert after.apply[0]["kind"] == "HTTPRoute"
    assert all("filters" not in rule for rule in after.apply[0]["spec"]["rules"])
    gone = {(obj["kind"], obj["metadata"]["name"]) for obj in after.delete}
    assert gone >= {
        ("Deployment", "fraud-shadow-hub"),
        ("Service", "fraud-shadow-hub"),
        ("Service", "fraud-shadow-tap"),
    }
    assert not [obj for obj in render(context(), shadowed(), children).delete if "shadow" in obj["metadata"]["name"]]


@pytest.mark.parametrize("monitors", [True, False])
def test_the_joiner_is_confined_and_scraped(monitors: bool) -> None:
    ctx = dataclasses.replace(context(), settings=Settings(pod_monitors=monitors))
    desired = render(ctx, shadowed(), Children())
    deployment = one(desired, "Deployment", "fraud-shadow-hub")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert template["spec"]["automountServiceAccountToken"] is False
    assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "volumes" not in template["spec"]
    assert names.DEPLOYMENT_LABEL not in template["metadata"]["labels"], "a disruption budget would count it"
    scraped = template["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
    watched = [obj for obj in desired.apply if obj["kind"] == "PodMonitor" and "shadow" in obj["metadata"]["name"]]
    assert (scraped, len(watched)) == (not monitors, int(monitors))
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_the_runtime_understands_what_the_joiner_is_told() -> None:
    deployment = one(render(context(), shadowed(), Children()), "Deployment", "fraud-shadow-hub")
    environment = {
        each["name"]: each["value"] for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    found = read(environment)
    assert found.targets == (("fraud-shadow-tap.ns.svc", 8082),)
    assert (found.candidate, found.tolerance, found.samples, found.redact) == ("candidate1", 0.5, 3, ("card",))


def test_pods_let_in_the_service_that_is_made() -> None:
    service = one(render(context(), shadowed(), Children()), "Service", "fraud-shadow-hub")
    (reader,) = default_readers("ns", "fraud")
    assert reader == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert service["spec"]["clusterIP"] == "None", "a name with an address of its own would not be the joiner's"
    assert len(names.joiner("a" * 40)) <= 63


def test_the_mirror_is_read_back() -> None:
    route = one(render(context(), shadowed(), Children()), "HTTPRoute")
    accepted = [{"type": kind, "status": "True", "observedGeneration": 3} for kind in ("Accepted", "ResolvedRefs")]
    route["metadata"]["generation"] = 3
    parent = {"parentRef": {"name": "public"}, "conditions": accepted}
    route["status"] = {"parents": [parent]}
    # Revisions have ten characters.
    assert len("candidate1") == names.REVISION_LENGTH
    state = observe("fraud", Children([route])).route
    assert (state.mirrored, state.accepted, state.refused) == ("candidate1", True, False)
    parent["conditions"] = [{**accepted[0], "status": "False", "message": "percent"}, accepted[1]]
    state = observe("fraud", Children([route])).route
    assert (state.accepted, state.refused) == (False, True)
    route["metadata"]["generation"] = 4
    assert observe("fraud", Children([route])).route.refused is False, "it has not seen this generation yet"
