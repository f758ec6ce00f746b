"""Bad specs are refused with words that help; good ones are taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.tables import ROOT, Bad, Kubectl, bad_specs, complaints, good_specs, load, merge, model_deployment
from serinus.api.spec import ModelDeploymentSpec

pytestmark = pytest.mark.needs("apiserver")


@pytest.mark.parametrize("bad", bad_specs(), ids=lambda bad: bad.name)
def test_bad_spec_is_refused_with_these_words(bad: Bad, kubectl: Kubectl) -> None:
    done = kubectl.apply(model_deployment(bad.name, bad.spec), "--dry-run=server")
    assert done.returncode != 0
    said = complaints(done.stderr)
    assert len(said) == len(bad.says), said
    for expected in bad.says:
        assert any(expected in line for line in said), said


@pytest.mark.parametrize("name", good_specs())
def test_good_spec_is_taken_and_parsed(name: str, kubectl: Kubectl) -> None:
    obj = model_deployment(f"good-{name}", good_specs()[name])
    done = kubectl.apply(obj, "--dry-run=server", "-o", "json")
    assert done.returncode == 0, done.stderr
    ModelDeploymentSpec.model_validate(json.loads(done.stdout)["spec"])


def test_the_api_server_stores_what_the_user_wrote_and_no_defaults_but_the_floor(kubectl: Kubectl) -> None:
    spec = good_specs()["three-lines"]
    done = kubectl.apply(model_deployment("bare", spec), "--dry-run=server", "-o", "json")
    stored = json.loads(done.stdout)
    assert stored["spec"] == {**spec, "scaling": {"min": 2}}
    assert stored["status"] == {"observedGeneration": -1}


def test_explicit_nulls_count_as_left_out(kubectl: Kubectl) -> None:
    spec = {**good_specs()["three-lines"], "route": None, "release": {"steps": None}}
    done = kubectl.apply(model_deployment("nulls", spec), "--dry-run=server", "-o", "json")
    assert done.returncode == 0, done.stderr
    ModelDeploymentSpec.model_validate(json.loads(done.stdout)["spec"])


@pytest.fixture
def stored(kubectl: Kubectl) -> Any:
    """A function that stores an object; it is deleted afterwards."""
    names: list[str] = []

    def store(name: str, spec: dict[str, Any]) -> None:
        names.append(name)
        done = kubectl.apply(model_deployment(name, spec))
        assert done.returncode == 0, done.stderr

    yield store
    for name in names:
        kubectl.run("delete", "mdep", name, "--wait=false")


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({"name": "fraud"}, {"name": "other"}, True),
        ({"name": "fraud"}, {"name": None}, True),
        ({}, {"name": "fraud"}, True),
        ({}, {"name": "immutable"}, False),
        ({"name": "immutable"}, {"name": None}, False),
        ({"name": "fraud"}, {"version": "v9"}, False),
    ],
)
def test_the_served_name_is_immutable(
    kubectl: Kubectl, stored: Any, before: dict[str, Any], after: dict[str, Any], refused: bool
) -> None:
    spec = merge(load("base.yaml"), {"model": before})
    stored("immutable", spec)
    done = kubectl.apply(model_deployment("immutable", merge(spec, {"model": after})), "--dry-run=server")
    assert (done.returncode != 0) == refused, done.stderr
    if refused:
        assert (
            "spec.model.name is immutable, because clients have it in their URLs: put the old name back" in done.stderr
        )


def test_columns_and_scale(kubectl: Kubectl, stored: Any) -> None:
    stored("shown", merge(load("base.yaml"), {"scaling": {"min": 2, "max": 6}}))
    status = {
        "observedGeneration": 1,
        "phase": "Canary",
        "live": {"revision": "r1", "version": "2026-10-01", "digest": "d"},
        "candidate": {"revision": "r2", "version": "2026-11-01", "digest": "d"},
        "weight": "25%",
        "metrics": {"p99": "21ms", "errorRate": "0.02%"},
        "replicas": 3,
        "selector": "app=x",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Live",
                "message": "",
                "lastTransitionTime": "2026-11-21T09:00:00Z",
            }
        ],
    }
    done = kubectl.run(
        "patch", "mdep", "shown", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    assert done.returncode == 0, done.stderr
    header, row = kubectl.run("get", "mdep", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "READY", "LIVE", "CANDIDATE", "PHASE", "WEIGHT", "P99", "ERRORS", "AGE"]
    assert row.split()[:-1] == ["shown", "True", "2026-10-01", "2026-11-01", "Canary", "25%", "21ms", "0.02%"]

    assert kubectl.run("scale", "mdep", "shown", "--replicas=3").returncode == 0
    scale = json.loads(kubectl.run("get", "mdep", "shown", "--subresource=scale", "-o", "json").stdout)
    assert (scale["spec"]["replicas"], scale["status"]["replicas"], scale["status"]["selector"]) == (3, 3, "app=x")
    refused = kubectl.run("scale", "mdep", "shown", "--replicas=7")
    assert "max must be at least min" in refused.stderr


def test_explain_tells_defaults(kubectl: Kubectl) -> None:
    told = kubectl.run("explain", "modeldeployment.spec.runtime.queue").stdout
    assert "Default: 512." in " ".join(told.split())


def test_the_api_server_takes_the_generated_crd_without_warnings(kubectl: Kubectl) -> None:
    done = kubectl.run("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", str(ROOT / "crds"))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
