"""Durations, sizes, configuration."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus_runtime.config import Config, from_environment, parse_size
from serinus_runtime.durations import parse_duration
from serinus_runtime.failures import FailureError, Reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("50us", 5e-5),
        ("3ms", 0.003),
        ("1.5s", 1.5),
        ("1h30m", 5400),
        ("2d", 172800),
        ("2w", 1209600),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "ms", "-1s", "1 s", "1S", "1s x", "1e3s", "٣s", "nan", "1,5s", "1ss"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a number and a unit"):
        parse_duration(text)


@given(st.integers(0, 10**9), st.sampled_from(["us", "ms", "s", "m", "h", "d", "w"]))
def test_durations_scale_with_their_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * parse_duration(f"1{unit}"))


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


def test_sizes() -> None:
    assert [parse_size(text) for text in ("4096", "4Ki", "4Mi", "1Gi")] == [4096, 4096, 4194304, 1 << 30]
    for text in ("", "-1", "4M", "4 Mi", "1.5Mi"):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(text)


def test_defaults_work_without_an_environment() -> None:
    assert from_environment({}) == Config(deployment="model")
    assert from_environment({"SERINUS_MODEL_DIGEST": "", "SERINUS_REVISION": ""}).model_digest == ""


def test_what_the_operator_sets() -> None:
    config = from_environment(
        {
            "SERINUS_NAMESPACE": "shop",
            "SERINUS_DEPLOYMENT": "fraud",
            "SERINUS_MODEL_NAME": "fraud-scorer",
            "SERINUS_MODEL_VERSION": "2026-11-01",
            "SERINUS_MODEL_DIGEST": "sha256:" + "a" * 64,
            "SERINUS_MODEL_DIR": "/models/model",
            "SERINUS_BATCH_MAX_DELAY": "3ms",
            "SERINUS_QUEUE_TIMEOUT": "200ms",
            "SERINUS_SLO_LATENCY": "50ms",
            "SERINUS_MAX_REQUEST_BYTES": "4194304",
            "SERINUS_DRAIN_DELAY": "5s",
        }
    )
    assert (config.namespace, config.deployment, config.model_name) == ("shop", "fraud", "fraud-scorer")
    assert (config.batch_max_delay, config.queue_timeout, config.slo_latency) == (0.003, 0.2, 0.05)
    assert (config.model_dir, config.max_request_bytes, config.drain_delay) == (Path("/models/model"), 4 << 20, 5.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "http"),
        ("HTTP_PORT", "70000"),
        ("METRICS_PORT", "-1"),
        ("THREADS", "0"),
        ("BATCH_MAX_SIZE", "0"),
        ("BATCH_MAX_SIZE", "4.5"),
        ("BATCH_MAX_DELAY", "3"),
        ("BATCH_MAX_DELAY", "2m"),
        ("QUEUE_MAX_LENGTH", "none"),
        ("QUEUE_TIMEOUT", "0s"),
        ("SLO_LATENCY", "0s"),
        ("MAX_REQUEST_BYTES", "4MB"),
        ("DRAIN_DELAY", "soon"),
        ("MODEL_NAME", "a/b"),
        ("MODEL_NAME", "-a"),
        ("MODEL_VERSION", "1/2"),
        ("MODEL_VERSION", "1\n2"),
        ("MODEL_DIGEST", "sha256:abc"),
        ("MODEL_DIGEST", "A" * 64),
        ("MODEL_DIR", "/"),
        ("NAMESPACE", "a\nb"),
    ],
)
def test_bad_settings_name_the_variable(name: str, value: str) -> None:
    with pytest.raises(FailureError, match=f"SERINUS_{name}: ") as caught:
        from_environment({f"SERINUS_{name}": value})
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert repr(value) in caught.value.message
