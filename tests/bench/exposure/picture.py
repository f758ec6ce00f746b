"""Users' bad requests per bad version and controller, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from bench.exposure.measure import Figures
from bench.exposure.report import WHAT, rows
from bench.exposure.trials import BAD, CONTENDERS

COLOURS = ("#009E73", "#0072B2", "#D55E00")


def draw(found: Sequence[Figures], path: Path) -> None:
    """Writes an SVG: seconds to detect on the left, bad requests on the right, both logarithmic."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    made = {(row.version, row.contender): row for row in rows(found)}
    versions = [version for version in BAD if any(key[0] == version for key in made)]
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    places = np.arange(len(versions))
    for number, (who, colour) in enumerate(zip(CONTENDERS, COLOURS, strict=True)):
        mine = [made.get((version, who.name)) for version in versions]
        at = places + 0.27 * (number - 1)
        axes[0].barh(at, [row.detect or 0.0 if row else 0.0 for row in mine], 0.25, color=colour, label=who.name)
        axes[1].barh(at, [row.bad if row else 0.0 for row in mine], 0.25, color=colour, label=who.name)
    for axis, title in zip(axes, ("seconds to detect (median)", "users' bad requests (median)"), strict=True):
        axis.set(xlabel=title, yticks=places, yticklabels=[WHAT[version] for version in versions])
        axis.set_xscale("symlog", linthresh=1)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
