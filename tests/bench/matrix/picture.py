"""The matrix as one picture: a field for each release, by disturbance, strategy and candidate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

from bench.matrix.cells import CANDIDATES, CAUGHT, DISTURBANCES, Cell, Outcome, kept
from bench.matrix.strategies import STRATEGIES

UNKNOWN, PROMOTED, STOPPED, WRONG = "#EEEEEE", "#A8DDB5", "#9ECAE1", "#F08080"


def colour(cell: Cell, found: Outcome | None) -> str:
    """Green for promoted, blue for rolled back, red for what must not be, grey for what was not played."""
    if found is None:
        return UNKNOWN
    if not kept(cell, found):
        return WRONG
    return STOPPED if found.outcome in CAUGHT else PROMOTED


def draw(found: Mapping[str, Outcome], path: Path) -> None:
    """Writes an SVG: seconds to the end in each field, and under it the requests that failed, others' + its own."""
    mpl.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch, Rectangle

    figure, axes = plt.subplots(1, len(DISTURBANCES), figsize=(16, 5.5), sharey=True, layout="constrained")
    for axis, disturbance in zip(axes, DISTURBANCES, strict=True):
        for y, strategy in enumerate(STRATEGIES):
            for x, candidate in enumerate(CANDIDATES):
                cell = Cell(strategy, candidate, disturbance)
                one = found.get(cell.key)
                axis.add_patch(Rectangle((x, y), 1, 1, facecolor=colour(cell, one), edgecolor="white"))
                if one:
                    told = f"{one.seconds:.0f} s\n{one.others} + {one.own}"
                    axis.text(x + 0.5, y + 0.5, told, ha="center", va="center", fontsize=7)
        axis.set(title=disturbance, xlim=(0, len(CANDIDATES)), ylim=(len(STRATEGIES), 0))
        axis.set_xticks([x + 0.5 for x in range(len(CANDIDATES))], list(CANDIDATES), rotation=30, ha="right")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_yticks([y + 0.5 for y in range(len(STRATEGIES))], list(STRATEGIES))
    legend = {
        "promoted": PROMOTED,
        "rolled back, or failed before users": STOPPED,
        "not as it must be": WRONG,
        "not played": UNKNOWN,
    }
    patches = [Patch(color=shade, label=text) for text, shade in legend.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
