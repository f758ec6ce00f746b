"""The models and the tables of good and bad specs that the API server is asked about."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from api.tables import Bad, bad_specs, good_specs
from serinus.api.spec import ModelDeploymentSpec

SERVER_ONLY = {
    # Rules over several fields, and of metadata: the API server has the last word.
    "delay-above-timeout", "delay-above-default-timeout", "queue-shorter-than-batch",
    "default-queue-shorter-than-batch", "request-above-limit", "gpu-only-requested", "gpu-without-domain", "gpu-half",
    "node-selector-key", "toleration-exists-with-value", "toleration-without-key", "metrics-without-room",
    "metrics-twice", "metric-target-millicores", "gateway-twice", "hostname-twice",
    "steps-empty", "steps-without-route", "a-name-of-more-than-forty-characters-in-all", "name.with.dots",
    "2nd-name-starts-with-a-digit", "engine-without-its-container", "engine-container-for-onnx",
    "engine-container-for-torchserve", "engine-on-our-port", "engine-grpc-on-our-port", "engine-grpc-on-its-http-port",
    "auth-without-keys", "auth-keys-from-two-places", "auth-refresh-of-a-file", "auth-said-twice",
    "engine-without-grpc-of-its-own", "engine-grpc-said-twice",
    "notification-to-nobody", "notification-to-two",
    "shadow-without-route",
    "flag-twice", "preview-at-the-same-host", "preview-host-without-route", "sticky-without-route", "sticky-blue-green",
    "sticky-with-too-many-steps",
    "env-twice", "env-with-a-field-of-its-own", "webhook-twice",
    "log-url-without-target", "log-target-without-url", "log-url-of-another-target", "log-credentials-for-stdout",
}  # fmt: skip


@pytest.mark.parametrize("bad", bad_specs(), ids=lambda bad: bad.name)
def test_the_models_refuse_what_they_can_tell(bad: Bad) -> None:
    if bad.name in SERVER_ONLY:
        ModelDeploymentSpec.model_validate(bad.spec)
    else:
        with pytest.raises(ValidationError):
            ModelDeploymentSpec.model_validate(bad.spec)


@pytest.mark.parametrize("name", good_specs())
def test_good_specs_parse_and_keep_what_was_written(name: str) -> None:
    spec = good_specs()[name]
    parsed = ModelDeploymentSpec.model_validate(spec)
    assert parsed.model_dump(mode="json", by_alias=True, exclude_unset=True) == spec


def test_a_quoted_message_reads_like_the_api_servers() -> None:
    spec = {**good_specs()["three-lines"], "slo": {"p99": "0"}}
    with pytest.raises(ValidationError, match="write the time that 99 % of requests must keep"):
        ModelDeploymentSpec.model_validate(spec)
