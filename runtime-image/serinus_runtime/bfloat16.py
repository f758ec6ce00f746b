"""BF16 on the wire and in engines; float32 everywhere between, which holds every BF16 number exactly.

numpy has no such type. With float32 inside, JSON, rows, rules, drift and the prediction log need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serinus_runtime.datatypes import Array

NAME = "BF16"


def widened(words: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers whose upper halves are `words`."""
    return (words.astype(np.uint32) << 16).view(np.float32)


def words(array: Array) -> NDArray[np.uint16]:
    """The upper halves of `array` (float32), rounded to nearest, ties to even; NaN stays NaN. In C order."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    upper = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    lost = (bits & 0x7FFFFFFF) > 0x7F800000
    if lost.any():
        # Rounding would carry a NaN's last bits into its sign; 0x40 keeps one whose upper bits are all zero a NaN.
        upper[lost] = (bits[lost] >> 16) | 0x40
    return upper


def rounded(array: Array) -> Array:
    """What is left of `array` in BF16. Raises OverflowError when a finite number becomes an infinity."""
    made = widened(words(array))
    if np.isinf(made).any() and not np.array_equal(np.isinf(made), np.isinf(array.astype(np.float32))):
        raise OverflowError
    return made


def from_raw(shape: Sequence[int], raw: memoryview) -> NDArray[np.float32]:
    """The numbers in `raw`, little-endian words of two bytes."""
    return widened(np.frombuffer(raw, dtype="<u2")).reshape(shape)


def to_raw(array: Array) -> memoryview:
    """`array` as little-endian words of two bytes."""
    return words(array).astype("<u2", copy=False).reshape(-1).view(np.uint8).data
