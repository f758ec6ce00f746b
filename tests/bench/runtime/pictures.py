"""Plots of what was measured."""

from __future__ import annotations

from pathlib import Path

OPEN_RATE = 800.0
"""Requests per second of the open loop."""
Figures = dict[str, float]
"""What one round of one peer gave, such as `rps64`, `p99_64`, `cpu64` (microseconds), `open_p99`, `mb`."""


def picture(results: dict[str, dict[str, Figures]], path: Path) -> None:
    """Throughput at 64 connections and p99 at the open rate, per model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(results), 2, figsize=(11, 0.5 + 3.2 * len(results)), squeeze=False)
    for line, (model, peers) in zip(axes, results.items(), strict=True):
        names = sorted(peers, key=lambda name: peers[name].get("rps64", 0.0))
        colours = ["#2a6f97" if name.startswith("serinus") else "#b0b7bd" for name in names]
        for axis, key, title in (
            (line[0], "rps64", f"{model}: requests/s at 64 connections"),
            (line[1], "open_p99", f"{model}: p99 ms at {OPEN_RATE:.0f}/s"),
        ):
            values = [peers[name].get(key, 0.0) for name in names]
            bars = axis.barh(names, values, color=colours)
            axis.bar_label(bars, [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values], padding=3)
            axis.set_title(title, fontsize=10)
            axis.set_xscale("log")
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.15)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def story(peers: dict[str, Figures], path: Path) -> None:
    """What batching does for a heavy model: throughput at 64 connections, and p99 at the open rate."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    labels = {"serinus-unbatched": "one by one", "serinus": "batched, no delay", "serinus-delay": "batched, 3 ms delay"}
    shown = {label: peers[name] for name, label in labels.items() if name in peers}
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for axis, key, title in (
        (axes[0], "rps64", "requests/s at 64 connections"),
        (axes[1], "open_p99", f"p99 ms at {OPEN_RATE:.0f} requests/s"),
    ):
        values = [figures.get(key, 0.0) for figures in shown.values()]
        bars = axis.bar(list(shown), values, color=["#b0b7bd", "#2a6f97", "#61a5c2"], width=0.6)
        axis.bar_label(bars, [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values], padding=3)
        axis.set_title(title, fontsize=10)
        axis.set_yscale("log")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.15)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
