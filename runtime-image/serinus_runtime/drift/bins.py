"""Bins, the population stability index and the binned Kolmogorov-Smirnov distance. Arrays in, numbers out.

PSI between the shares p (now) and q (reference) of the same bins is sum((p - q) * ln(p / q)): the symmetrised
Kullback-Leibler divergence. It and its customary limits (below 0.1 little has changed, above 0.25 much) come from
credit scoring: N. Siddiqi, Credit Risk Scorecards, Wiley 2006. Without any drift, PSI of B bins, n rows and a reference
of m rows is about (1/n + 1/m) times chi-squared with B - 1 degrees of freedom (B. Yurdakul, J. Naranjo, Statistical
properties of the population stability index, Journal of Risk Model Validation 14(4), 2020), so its mean is
(B - 1) * (1/n + 1/m): see `bias`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serinus_runtime.datatypes import Array

Floats = npt.NDArray[np.float64]
PRIOR = 0.5
"""Added to every bin of both sides, so that an empty one gives a large number and not infinity."""


def quantile_edges(values: Array, bins: int) -> Floats:
    """Upper edges (inclusive) of about `bins` bins with equal shares of `values`; the last bin is open.

    Values with at most `bins` different ones get a bin each. A constant gets one below, one for itself and one above.
    NaN is left out. Raises ValueError when nothing is left or `bins` is less than 2.
    """
    if bins < 2:
        raise ValueError("at least two bins are needed")
    told = np.asarray(values, dtype=np.float64).ravel()
    told = told[np.isfinite(told)]
    if not told.size:
        raise ValueError("there is no finite number to make bins of")
    distinct = np.unique(told)
    if distinct.size == 1:
        return np.array([np.nextafter(distinct[0], -np.inf), distinct[0]])
    if distinct.size <= bins:
        return distinct[:-1]
    edges = np.quantile(told, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.unique(edges[edges < distinct[-1]])


def count_numbers(values: Array, edges: Array) -> Floats:
    """Per bin of `edges` how many of `values` there are, and last how many are NaN: len(edges) + 2 counts."""
    told = np.asarray(values, dtype=np.float64).ravel()
    # searchsorted puts NaN behind everything: one place too early.
    places = np.searchsorted(edges, told, side="left")
    places[np.isnan(told)] = len(edges) + 1
    return np.bincount(places, minlength=len(edges) + 2).astype(np.float64)


def count_values(values: Sequence[Any], places: Mapping[Any, int]) -> Floats:
    """Per known value how many of `values` there are, and last how many are none of them: len(places) + 1 counts."""
    other = len(places)
    found = np.fromiter((places.get(value, other) for value in values), dtype=np.int64, count=len(values))
    return np.bincount(found, minlength=other + 1).astype(np.float64)


def psi(now: Floats, reference: Floats) -> float:
    """The population stability index of two arrays of counts of the same bins. Raises ValueError for other shapes."""
    if now.shape != reference.shape or now.ndim != 1 or not now.size:
        raise ValueError("both sides need the same bins")
    p, q = (counts + PRIOR for counts in (now, reference))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def bias(bins: int, rows: float, reference_rows: float) -> float:
    """What PSI is on average when nothing has changed."""
    return (bins - 1) * (1.0 / rows + 1.0 / reference_rows)


def ks(now: Floats, reference: Floats) -> float:
    """The largest difference of the two distribution functions at the edges of their bins, from counts in order.

    It is never above the Kolmogorov-Smirnov statistic of the values themselves, and at most the largest share of a bin
    below it. 0 when one side has no counts.
    """
    if not now.sum() or not reference.sum():
        return 0.0
    apart = np.cumsum(now) / now.sum() - np.cumsum(reference) / reference.sum()
    return float(np.max(np.abs(apart)))
