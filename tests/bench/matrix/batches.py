"""Which cells are played next to each other, and in which order. Pure.

What hits the whole cluster hits all lanes, so a batch has one disturbance. A run that is cut short must have something
of everything: each cell taken is the one whose strategy, candidate, disturbance and pairs of them were met least.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

from bench.matrix.cells import CANDIDATES, DISTURBANCES, SHARED, Cell
from bench.matrix.strategies import STRATEGIES

HEAVY = "slow"
"""A candidate that takes so much of the machine that two of them at once would slow down everybody."""


def batch(todo: Sequence[Cell], met: Iterable[Cell], lanes: int) -> list[Cell]:
    """The cells to play next: one for each lane, or two where each lane is by itself; fewer when nothing fits."""
    seen: Counter[tuple[str, ...]] = Counter()
    for cell in met:
        seen.update(_features(cell))
    chosen: list[Cell] = []
    size = lanes
    while len(chosen) < size:
        fits = [cell for cell in todo if cell not in chosen and _fits(cell, chosen)]
        if not fits:
            break
        best = min(fits, key=lambda cell: _known(cell, seen))
        chosen.append(best)
        seen.update(_features(best))
        size = lanes if best.disturbance in SHARED else 2 * lanes
    return chosen


def _fits(cell: Cell, chosen: Sequence[Cell]) -> bool:
    """Whether it may be played beside those chosen."""
    if not chosen:
        return True
    heavy = cell.candidate == HEAVY and any(other.candidate == HEAVY for other in chosen)
    return cell.disturbance == chosen[0].disturbance and not heavy


def _features(cell: Cell) -> list[tuple[str, ...]]:
    one = [("s", cell.strategy), ("c", cell.candidate), ("d", cell.disturbance)]
    return [*one, *((*a, *b) for a, b in ((one[0], one[1]), (one[0], one[2]), (one[1], one[2])))]


def _known(cell: Cell, seen: Counter[tuple[str, ...]]) -> tuple[int, int]:
    """How much of the cell was met, each kind of feature by how many there are of it; then chance, always the same."""
    sizes = (len(STRATEGIES), len(CANDIDATES), len(DISTURBANCES))
    s, c, d = sizes
    weights = (s, c, d, s * c, s * d, c * d)
    met = sum(weight * seen[feature] for weight, feature in zip(weights, _features(cell), strict=True))
    return met, zlib.crc32(cell.key.encode())
