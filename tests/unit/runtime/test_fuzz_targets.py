"""The fuzz targets (`make fuzz`) with their seeds and small changes to them: they work, and find what is easy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_neighbours(name: str) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds:
        target(seed)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(seeds), st.integers(0, 400), st.binary(max_size=6), st.integers(0, 6))
    def mutated(seed: bytes, at: int, put: bytes, cut: int) -> None:
        target(seed[:at] + put + seed[at + cut :])

    mutated()
