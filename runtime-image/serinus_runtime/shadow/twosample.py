"""How far apart two samples are: PSI and the Kolmogorov-Smirnov distance. Values in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from serinus_runtime.datatypes import Array
from serinus_runtime.drift import bins

MINIMUM = 100
"""Values of each side below which nothing is told: PSI of ten bins would be 0.18 without any difference."""
_BINS = 10
_FREQUENT = 20


def ks(one: Array, other: Array) -> float:
    """The largest difference of the two empirical distribution functions: 0 the same, 1 apart. NaN is left out."""
    a, b = (np.sort(values[~np.isnan(values)]) for values in (one, other))
    if not a.size or not b.size:
        return 0.0
    every = np.concatenate((a, b))
    apart = np.searchsorted(a, every, side="right") / a.size - np.searchsorted(b, every, side="right") / b.size
    return float(np.max(np.abs(apart)))


def psi_numbers(now: Array, reference: Array) -> float:
    """The population stability index in tenths of `reference`, and a bin for what is no number.

    What it would be without any difference (`bins.bias`) is taken off, so that a small sample does not look far away.
    """
    known = bool(np.isfinite(reference).any())
    edges = bins.quantile_edges(reference, _BINS) if known else np.array([0.0])
    counts = bins.count_numbers(now, edges), bins.count_numbers(reference, edges)
    return _unbiased(*counts)


def psi_values(now: Sequence[Any], reference: Sequence[Any]) -> float:
    """The same of names: the 20 most frequent of `reference`, and all others together."""
    places = {value: at for at, (value, _) in enumerate(Counter(reference).most_common(_FREQUENT))}
    return _unbiased(bins.count_values(now, places), bins.count_values(reference, places))


def _unbiased(now: bins.Floats, reference: bins.Floats) -> float:
    used = int(np.count_nonzero(now + reference))
    if used < 2:
        return 0.0
    kept = (now + reference) > 0
    noise = bins.bias(used, max(1.0, now.sum()), max(1.0, reference.sum()))
    return max(0.0, bins.psi(now[kept], reference[kept]) - noise)
