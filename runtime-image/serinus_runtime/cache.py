"""Answers that were given before: least recently used go first, bounded in bytes, each for a limited time.

Keys are made of the inputs' names, types, shapes and values and of the outputs that are asked for. The cache belongs to
one process and one model; another digest is another process, so the digest needs no place in the key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import numpy as np

from serinus_runtime.datatypes import Array

_ENTRY_BYTES = 500
"""What an entry costs beside its arrays, about."""


class ResponseCache:
    """Outputs by key. `size` is in bytes, `ttl` in seconds on `clock`."""

    def __init__(self, size: int, ttl: float, clock: Callable[[], float]) -> None:
        self.hits = 0
        self.misses = 0
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[Mapping[str, Array], float, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes that are taken, about."""
        return self._bytes

    def get(self, key: Hashable) -> Mapping[str, Array] | None:
        """What was put under `key`, unless it is too old. Counts a hit or a miss."""
        entry = self._entries.get(key)
        if entry is not None:
            if entry[1] > self._clock():
                self._entries.move_to_end(key)
                self.hits += 1
                return entry[0]
            self._remove(key)
        self.misses += 1
        return None

    def put(self, key: Hashable, outputs: Mapping[str, Array]) -> None:
        """Keeps a copy of `outputs`; what is larger than a tenth of the cache is not kept."""
        nbytes = _ENTRY_BYTES + sum(_nbytes(array) for array in outputs.values())
        if nbytes * 10 > self._size:
            return
        if key in self._entries:
            self._remove(key)
        # A copy: rows are views of a whole batch, and would keep it alive.
        kept = {name: np.array(array) for name, array in outputs.items()}
        for array in kept.values():
            array.flags.writeable = False
        self._entries[key] = (kept, self._clock() + self._ttl, nbytes)
        self._bytes += nbytes
        while self._bytes > self._size:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Hashable) -> None:
        self._bytes -= self._entries.pop(key)[2]


def _nbytes(array: Array) -> int:
    if array.dtype.kind != "O":
        return array.nbytes
    return array.nbytes + sum(len(str(item)) + 50 for item in array.ravel().tolist())
