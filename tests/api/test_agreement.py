"""The API server and the models take and refuse the same texts: RE2 and CEL on one side, Python on the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kubernetes import client, config
from pydantic import ValidationError

from api.tables import Kubectl, good_specs, merge, model_deployment
from serinus.api import GROUP, PLURAL, VERSION
from serinus.api.spec import ModelDeploymentSpec

pytestmark = pytest.mark.needs("apiserver")


def _hold(text: str) -> dict[str, Any]:
    return {"route": {"parentRefs": [{"name": "public"}]}, "release": {"steps": [{"weight": 5, "hold": text}]}}


FIELDS: dict[str, Any] = {
    "p99": lambda text: {"slo": {"p99": text}},
    "hold": _hold,
    "progressDeadline": lambda text: {"release": {"progressDeadline": text}},
    "scaleDownDelay": lambda text: {"scaling": {"scaleDownDelay": text}},
    "errorRate": lambda text: {"slo": {"errorRate": text}},
    "availability": lambda text: {"slo": {"availability": text}},
    "maxRequestSize": lambda text: {"runtime": {"maxRequestSize": text}},
    "memory": lambda text: {"runtime": {"resources": {"limits": {"memory": text}}}},
    "uri": lambda text: {"model": {"uri": text}},
    "digest": lambda text: {"model": {"digest": text}},
    "name": lambda text: {"model": {"name": text}},
    "version": lambda text: {"model": {"version": text}},
    "image": lambda text: {"runtime": {"image": text}},
    "serviceAccountName": lambda text: {"runtime": {"serviceAccountName": text}},
    "nodeSelector": lambda text: {"runtime": {"nodeSelector": {"disktype": text}}},
    "tolerationKey": lambda text: {"runtime": {"tolerations": [{"key": text}]}},
    "hostname": lambda text: {"route": {"parentRefs": [{"name": "public"}], "hostnames": [text]}},
    "path": lambda text: {"route": {"parentRefs": [{"name": "public"}], "path": text}},
}
SEEDS = {
    "p99": ["0", "0ms", "0.0s", "1us", "1h", "60m", "3601s", "999999999w"],
    "hold": ["0", "52w", "364d", "365d", "52.1w", "1000000000s"],
    "progressDeadline": ["999ms", "1s", "1000ms", "1w", "7d", "8d", "168h", "169h"],
    "scaleDownDelay": ["0", "1h", "60m", "60.1m"],
    "errorRate": ["0%", "0.0001%", "0.00009%", "50%", "50.0%", "50.1%", "100%"],
    "availability": ["100%", "100.0%", "99.999999999%", "49%", "50%"],
    "maxRequestSize": ["1Ki", "1024", "1023", "1Gi", "1073741825", "1.1G", "1024000m", "1000000P"],
    "memory": ["4Gi", "4GB", "1.5Gi", "999999999999999P"],
    "uri": ["https://a/b", "http://[::1]:80/", "pvc://a.b/c", "file:///", "pvc://a/..", "pvc://a/...", "HTTPS://a"],
    "digest": ["sha256:" + "a" * 64, "sha256:" + "a" * 63],
    "hostname": ["*.a", "*", "1.2.3.4", "1.2.3", "a..b", "a-", "A.b"],
    "path": ["/", "//", "/a/..", "/...", "/%2f", "/%2F", "/%zz", "/a.b"],
}
ALPHABET = "az09AZ.-_/:%~* \n\t$é'\"\\?#@[]µsmhKMiGn٣"


def texts(seeds: list[str]) -> st.SearchStrategy[str]:
    """Texts near the seeds: one character put in, replaced or left out; and texts of suspicious characters."""
    anything = st.text(ALPHABET, max_size=12)
    if not seeds:
        return anything
    near = st.tuples(st.sampled_from(seeds), st.integers(0, 80), st.text(ALPHABET, max_size=1), st.integers(0, 1))
    return anything | st.sampled_from(seeds) | near.map(lambda n: n[0][: n[1]] + n[2] + n[0][n[1] + n[3] :])


@pytest.fixture(scope="module")
def api(kubectl: Kubectl) -> Iterator[Any]:
    with config.new_client_from_config(str(kubectl.kubeconfig)) as connection:
        yield client.CustomObjectsApi(connection)


def server_takes(api: Any, spec: dict[str, Any]) -> bool:
    """Whether the API server would store the spec."""
    try:
        api.create_namespaced_custom_object(
            GROUP, VERSION, "default", PLURAL, model_deployment("agreement", spec), dry_run="All"
        )
    except client.ApiException as error:
        if error.status != 422:
            raise
        return False
    return True


def models_take(spec: dict[str, Any]) -> bool:
    """Whether the models parse the spec."""
    try:
        ModelDeploymentSpec.model_validate(spec)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("field", FIELDS)
def test_both_sides_judge_alike(api: Any, field: str) -> None:
    seeds = SEEDS.get(field, ["a", "v1", "a-b.c/d", "A", "a" * 63, "a" * 64, "a" * 253, "a" * 254])

    @settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(text=texts(seeds))
    def agree(text: str) -> None:
        spec = merge(good_specs()["three-lines"], FIELDS[field](text))
        assert models_take(spec) == server_takes(api, spec), text

    for seed in seeds:
        agree = example(text=seed)(agree)
    agree()
