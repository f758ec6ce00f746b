"""Pauses between tries: as docs/gates.md and docs/notifications.md say, and bounded however long it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.release.retries import HOOK, MESSAGE, SMOKE_TEST, Retries


@pytest.mark.parametrize(
    ("retries", "pauses"), [(HOOK, [2, 4, 8, 16]), (MESSAGE, [10, 40, 160, 640]), (SMOKE_TEST, [2, 4, 8, 16, 30, 30])]
)
def test_pauses_are_those_of_the_documents(retries: Retries, pauses: list[float]) -> None:
    assert [retries.pause(tried) for tried in range(1, len(pauses) + 1)] == pauses
    assert not retries.spent(4)
    assert retries.spent(5) is (retries is not SMOKE_TEST)


@given(retries=st.sampled_from([HOOK, MESSAGE, SMOKE_TEST]), tried=st.integers(1, 10**9))
def test_pauses_grow_up_to_the_longest(retries: Retries, tried: int) -> None:
    assert retries.first <= retries.pause(tried) <= retries.pause(tried + 1) <= retries.longest
