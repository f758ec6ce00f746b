"""Counts that fade: what was seen one half-life ago counts half. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from serinus_runtime.datatypes import Array
from serinus_runtime.drift import bins
from serinus_runtime.drift.reference import Column, Numbers

MINIMUM = 500.0
"""Faded rows below which nothing is told. With 500 rows and no drift, PSI of 11 bins is 0.02 on average and above 0.06
once in a thousand looks; of 21 bins 0.04 and 0.09: still below the customary 0.1."""


class Told(msgspec.Struct, frozen=True):
    """What is known of one column. `ks` is None for columns whose values have no order."""

    rows: float
    psi: float
    ks: float | None


class Faded:
    """The counts of one column against its reference. `seconds` is the half-life."""

    def __init__(self, column: Column, seconds: float) -> None:
        self._reference = column.all_counts()
        self._counts = np.zeros_like(self._reference)
        self._seconds = seconds
        self._at = 0.0
        self._ordered = isinstance(column, Numbers)
        if isinstance(column, Numbers):
            self._edges = np.array(column.edges, dtype=np.float64)
            self._places: Mapping[str, int] = {}
        else:
            self._places = {value: at for at, value in enumerate(column.values)}

    def add(self, values: Array, now: float) -> None:
        """Counts `values`, one per row, seen at `now` (seconds that only go forward)."""
        if self._ordered:
            found = bins.count_numbers(values, self._edges)
        else:
            found = bins.count_values(values.ravel().tolist(), self._places)
        self._fade(now)
        self._counts += found

    def tell(self, now: float) -> Told:
        """What the counts say at `now`."""
        self._fade(now)
        rows = float(self._counts.sum())
        ks = bins.ks(self._counts[:-1], self._reference[:-1]) if self._ordered else None
        # A reference of a million rows must not look more certain for its zeros than the window can be: both sides
        # get the same prior on counts of the same size.
        scaled = self._reference * (rows / self._reference.sum()) if rows else self._reference
        return Told(rows, bins.psi(self._counts, scaled), ks)

    def _fade(self, now: float) -> None:
        if now > self._at:
            self._counts *= 0.5 ** ((now - self._at) / self._seconds)
            self._at = now
