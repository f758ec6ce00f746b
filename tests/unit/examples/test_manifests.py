"""What users read and what the demo applies."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud import store
from fraud.train import VERSIONS, Built
from serinus.api.spec import ModelDeploymentSpec

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Built]:
    result = {}
    for version in VERSIONS:
        directory = tmp_path / version
        directory.mkdir()
        (directory / "model.onnx").write_bytes(version.encode())
        (directory / "SHA256SUMS").write_text("sums")
        result[version] = Built(version, directory, "sha256:" + hashlib.sha256(version.encode()).hexdigest(), 0.9)
    return result


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_a_valid_model_deployment(models: dict[str, Built], version: str) -> None:
    document = yaml.safe_load(store.model_deployment(models[version], "public", "gateway-system"))
    assert (document["apiVersion"], document["kind"]) == ("serving.serinus.dev/v1alpha1", "ModelDeployment")
    assert document["metadata"] == {"name": "fraud-scorer", "namespace": "fraud"}
    spec = ModelDeploymentSpec.model_validate(document["spec"])
    assert (spec.model.version, spec.model.digest) == (version, models[version].digest)
    assert spec.model.uri == f"http://model-store.fraud.svc/fraud/{version}/"
    assert (spec.slo.p99, spec.slo.error_rate, spec.slo.availability) == ("50ms", "0.1%", "99.9%")
    assert (spec.runtime.batching.max_size, spec.runtime.batching.max_delay) == (32, "3ms")
    assert (spec.scaling.min, spec.scaling.max) == (2, 4)
    assert [step.weight for step in spec.release.plan_steps()] == [5, 25, 50]
    assert spec.route is not None
    assert spec.route.parent_refs[0].model_dump(exclude_none=True) == {"name": "public", "namespace": "gateway-system"}


def test_versions_differ_in_the_model_only(models: dict[str, Built]) -> None:
    specs = []
    for model in models.values():
        spec = yaml.safe_load(store.model_deployment(model, "public", "gateway-system"))["spec"]
        spec.pop("model")
        specs.append(spec)
    assert all(spec == specs[0] for spec in specs)


def test_the_store_holds_the_files_byte_for_byte(models: dict[str, Built]) -> None:
    made = store.manifests(models.values(), "serinus-runtime:dev")
    maps = [item for item in made if item["kind"] == "ConfigMap"]
    assert len(maps) == 5
    assert {base64.b64decode(item["binaryData"]["model.onnx"]).decode() for item in maps} == set(VERSIONS)
    assert all("SHA256SUMS" in item["binaryData"] and item["immutable"] for item in maps)
    assert len({item["metadata"]["name"] for item in maps}) == 5


def test_the_store_passes_the_restricted_pod_security_level(models: dict[str, Built]) -> None:
    deployment = next(i for i in store.manifests(models.values(), "x/serinus-runtime:1") if i["kind"] == "Deployment")
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == "x/serinus-runtime:1"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    namespace = yaml.safe_load((store.MANIFESTS / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_mounts_give_the_paths_that_the_manifests_name(models: dict[str, Built]) -> None:
    deployment = next(i for i in store.manifests(models.values(), "x") if i["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    served = {mount["mountPath"].removeprefix("/srv") + "/" for mount in pod["containers"][0]["volumeMounts"]}
    wanted = {
        yaml.safe_load(store.model_deployment(m, "g", "n"))["spec"]["model"]["uri"].split(".svc")[1]
        for m in models.values()
    }
    assert served == wanted
