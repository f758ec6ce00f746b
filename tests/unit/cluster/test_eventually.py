"""Waiting by looking."""

from __future__ import annotations

import itertools

import pytest

from cluster import ClusterError
from cluster.wait import until
from support.eventually import eventually


def test_returns_what_the_first_success_returns() -> None:
    calls = itertools.count()

    def third() -> int:
        number = next(calls)
        assert number >= 2, f"only {number}"
        return number

    assert eventually(third, timeout=5, interval=0) == 2


def test_last_error_is_the_tests_own() -> None:
    def never() -> None:
        raise AssertionError("weight is 5, not 20")

    with pytest.raises(AssertionError, match="weight is 5, not 20") as caught:
        eventually(never, timeout=0)
    assert caught.value.__notes__ == ["still so after 0 s"]


def test_other_errors_are_not_waited_for() -> None:
    def broken() -> None:
        raise TypeError("a mistake in the test")

    with pytest.raises(TypeError):
        eventually(broken, timeout=60)


def test_until_names_what_it_waited_for() -> None:
    def refused() -> bool:
        raise ConnectionRefusedError("refused")

    with pytest.raises(ClusterError, match=r"waited 0 s for the API server \(last error: refused\)"):
        until("the API server", refused, timeout=0)
