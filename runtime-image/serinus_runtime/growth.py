"""How many rows a batch may have where nobody said: more than usual while that makes a row much cheaper.

A dense network of 34 MB reads all its weights for every batch, so that a row takes a fifth less in a batch of 64 than
in one of 32; trees take as long for each row. It matters under load only: batches are as large as what waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serinus_runtime.datatypes import Array
from serinus_runtime.engine import Signature, synthetic_inputs

MOST = 256
"""Rows that a batch has at most unless somebody says otherwise."""
_DEAR = 0.001
"""Seconds: of batches that take less, everything around them costs more than the model does."""
_GAIN = 0.85
"""Twice the rows are worth it where a row then takes at most this part of what it took."""
_SECONDS = 0.05
"""No batch is made larger when it takes longer: everybody in it waits for the last row."""
_BYTES = 4 << 20
"""Of inputs. Larger ones take memory that nobody planned for, in the engine's arena too."""


def grown(known: Mapping[int, float], size: int, seconds: Callable[[int], float | None]) -> dict[int, float]:
    """`known`, seconds per batch by rows, with sizes above `size` that are worth it; the largest key is the new limit.

    `seconds` measures a batch of so many rows; None: such batches cannot be.
    """
    found = dict(known)
    while found.get(size, 0.0) >= _DEAR and 2 * size <= MOST:
        took = seconds(2 * size)
        if took is None or took > _SECONDS or took > 2 * _GAIN * found[size]:
            break
        size *= 2
        found[size] = took
    return found


def affordable(signature: Signature, rows: int) -> bool:
    """Whether inputs of so many rows are small enough for a size that nobody asked for."""
    row: Mapping[str, Array] = synthetic_inputs(signature, 1)
    return rows * sum(array.nbytes for array in row.values()) <= _BYTES
