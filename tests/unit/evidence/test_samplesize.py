"""Sample sizes against published ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from serinus.evidence.samplesize import sample_size


@pytest.mark.parametrize(
    ("baseline", "other", "alpha", "power", "published"),
    [
        (0.50, 0.75, 0.05, 0.90, 77),  # R, help(power.prop.test): n = 76.7
        (0.50, 0.75, 0.05, 0.80, 58),  # R, power.prop.test: n = 57.7
        (0.10, 0.15, 0.05, 0.80, 686),  # R, power.prop.test: n = 685.6
    ],
)
def test_published_sizes(baseline: float, other: float, alpha: float, power: float, published: int) -> None:
    assert sample_size(baseline, other - baseline, alpha, power) == (published, published)


@pytest.mark.parametrize(("baseline", "other", "power"), [(0.04, 0.05, 0.8), (0.6, 0.7, 0.8), (0.2, 0.15, 0.9)])
def test_the_size_has_the_power_that_it_promises(baseline: float, other: float, power: float) -> None:
    """The pooled z-test's power at that size, by adding up every outcome."""
    size, _ = sample_size(baseline, other - baseline, 0.05, power)
    counts = np.arange(size + 1)
    few, many = np.meshgrid(counts, counts, indexing="ij")
    pooled = (few + many) / (2 * size)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(few - many) / size / np.sqrt(pooled * (1 - pooled) * 2 / size)
    chances = np.outer(binom.pmf(counts, size, baseline), binom.pmf(counts, size, other))
    assert chances[z > 1.959964].sum() == pytest.approx(power, abs=0.01)


@given(baseline=st.floats(0.01, 0.5), effect=st.floats(0.005, 0.3), share=st.floats(0.05, 0.95))
def test_an_even_split_needs_the_fewest(baseline: float, effect: float, share: float) -> None:
    even, uneven = sum(sample_size(baseline, effect)), sum(sample_size(baseline, effect, share=share))
    live, candidate = sample_size(baseline, effect, share=share)
    assert uneven >= even * 0.8
    assert candidate == pytest.approx(live * share / (1 - share), abs=share / (1 - share) + 1)
    assert sum(sample_size(baseline, effect, design=3)) == pytest.approx(3 * even, abs=6)


@given(baseline=st.floats(0.01, 0.5), effect=st.floats(0.005, 0.2))
def test_more_is_needed_for_less_error_and_for_a_smaller_effect(baseline: float, effect: float) -> None:
    size = sample_size(baseline, effect)[0]
    assert sample_size(baseline, effect, alpha=0.01)[0] >= size
    assert sample_size(baseline, effect, power=0.95)[0] >= size
    assert sample_size(baseline, effect / 2)[0] >= size


@pytest.mark.parametrize(("baseline", "effect"), [(0.0, 0.1), (0.99, 0.02), (0.01, -0.02), (0.5, 0.0)])
def test_shares_outside_their_range_are_refused(baseline: float, effect: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_size(baseline, effect)
