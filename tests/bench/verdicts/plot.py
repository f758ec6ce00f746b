"""Seconds to roll back against the bound, and false roll-backs, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from bench.verdicts.others import RULES

if TYPE_CHECKING:
    from bench.verdicts.__main__ import Found


def draw(found: Sequence[Found], path: Path) -> None:
    """Writes the picture."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    names = ["Serinus", *(rule.name for rule in RULES)]
    bad = [each for each in found if not each.row.good and each.bound is not None]
    for name in names:
        points = [(each.bound, each.median[name]) for each in bad if np.isfinite(each.median.get(name, np.inf))]
        left.plot(*zip(*points, strict=True), "o" if name == "Serinus" else ".", label=name, alpha=0.7)
    bounds = np.geomspace(0.01, 200, 100)
    left.plot(bounds, np.maximum(2.0, 2 * bounds + 2), "k--", linewidth=1, label="twice the bound and a tick")
    left.set(xscale="log", yscale="log", xlabel="bound log(1/alpha)/KL, seconds", ylabel="median seconds to roll back")
    left.legend(fontsize=8)
    good = [each for each in found if each.row.good]
    for name in names:
        shares = sorted(each.caught[name] for each in good if name in each.caught)
        right.plot(range(len(shares)), np.maximum(shares, 5e-5), "o-" if name == "Serinus" else ".-", label=name)
    right.axhline(0.01, color="k", linestyle="--", linewidth=1)
    right.set(yscale="log", xlabel="good candidates, sorted", ylabel="share rolled back (alpha dashed)")
    figure.savefig(path)
    plt.close(figure)
