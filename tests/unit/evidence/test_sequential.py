"""The sequential test: how often it is wrong, and how soon it is right."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.evidence.sequential import log_e_value, upper_bound


def first_alarm(rate: float, p0: float, alpha: float, requests: int, rng: random.Random) -> int | None:
    """The number of requests after which the test raises its alarm when it is looked at after each of them."""
    failures = 0
    limit = math.log(1 / alpha)
    for n in range(1, requests + 1):
        failures += rng.random() < rate
        # Evidence only grows at a failure.
        if failures and log_e_value(failures, n, p0) >= limit:
            return n
    return None


@pytest.mark.parametrize("p0", [0.001, 0.01, 0.1])
def test_false_alarms_stay_under_alpha_however_often_one_looks(p0: float) -> None:
    rng = random.Random(7)
    runs, alpha = 300, 0.05
    alarms = sum(first_alarm(p0, p0, alpha, 600, rng) is not None for _ in range(runs))
    # 99.9 % upper quantile of Binomial(300, 0.05) is 28.
    assert alarms <= 28


@pytest.mark.parametrize(("rate", "p0"), [(0.05, 0.001), (0.1, 0.01), (0.2, 0.001)])
def test_detection_is_near_the_information_bound(rate: float, p0: float) -> None:
    rng = random.Random(11)
    alpha = 0.01
    divergence = rate * math.log(rate / p0) + (1 - rate) * math.log((1 - rate) / (1 - p0))
    bound = math.log(1 / alpha) / divergence
    delays = sorted(first_alarm(rate, p0, alpha, 5000, rng) or 5000 for _ in range(101))
    assert delays[50] <= 2.5 * bound + 2


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.0001, 0.001, 0.01, 0.3]))
def test_more_failures_never_speak_for_the_candidate(failures: int, requests: int, p0: float) -> None:
    failures = min(failures, requests)
    assert log_e_value(min(failures + 1, requests), requests, p0) >= log_e_value(failures, requests, p0)
    assert log_e_value(failures, requests + 1, p0) <= log_e_value(failures, requests, p0) + 1e-9


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.0005, 0.5))
def test_expected_factor_of_one_more_request_is_at_most_one(failures: int, successes: int, p0: float) -> None:
    """The supermartingale property itself, at the least favourable rate."""
    requests = failures + successes
    now = log_e_value(failures, requests, p0)
    failed = math.exp(log_e_value(failures + 1, requests + 1, p0) - now)
    passed = math.exp(log_e_value(failures, requests + 1, p0) - now)
    assert p0 * failed + (1 - p0) * passed <= 1 + 1e-9


@pytest.mark.parametrize(("failures", "requests", "p0"), [(-1, 5, 0.1), (6, 5, 0.1), (1, 5, 0.0), (1, 5, 1.0)])
def test_nonsense_is_refused(failures: int, requests: int, p0: float) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        log_e_value(failures, requests, p0)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_upper_bound_is_above_the_observed_rate(failures: int, requests: int) -> None:
    failures = min(failures, requests)
    assert failures / requests - 1e-12 <= upper_bound(failures, requests) <= 1.0
