"""The timeline: who served, how slow, how many failed, and when Serinus decided; colours safe for colour-blind eyes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MultipleLocator, NullFormatter

from fraud.records import Record, figures
from fraud.story import Moment, Story

WINDOW_SECONDS = 2.0
SLO_MS = 50.0
SLO_ERRORS = 0.001
NOBODY = "no model"
_COLOURS = {  # Okabe and Ito
    "v1": "#0072B2",
    "v2": "#009E73",
    "v3": "#D55E00",
    "v4": "#CC79A7",
    "v5": "#E69F00",
    NOBODY: "#000000",
}
_MARKERS = {"v1": "o", "v2": "s", "v3": "^", "v4": "D", "v5": "P", NOBODY: "x"}
_DECISIONS = {"promoted": ("✔", "#00684D"), "rolledback": ("↩", "#A94400"), "failed": ("✖", "#8A3A6B")}
_INK, _GRID, _QUIET = "#222222", "#E4E4E4", "#8A8A8A"
_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}

Series = dict[str, list[tuple[float, list[Record]]]]


def windows(records: Sequence[Record], origin: float, seconds: float = WINDOW_SECONDS) -> Series:
    """Records per version and window; a window's time is its middle, in seconds since `origin`."""
    boxes: dict[str, dict[int, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        boxes[record.version or NOBODY][math.floor((record.at - origin) / seconds)].append(record)
    return {
        version: [((index + 0.5) * seconds, boxes[version][index]) for index in sorted(boxes[version])]
        for version in sorted(boxes, key=lambda version: (version == NOBODY, version))
    }


def draw(story: Story, records: Sequence[Record], title: str) -> Figure:
    """The picture. `records` must not be empty."""
    origin = min(r.at for r in records)
    end = max(r.at for r in records) - origin
    series = windows(records, origin)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "svg.fonttype": "path"}):
        figure = Figure(figsize=(15, 10.5), dpi=110, facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            4, 1, height_ratios=[1.0, 2.0, 0.9, 1.1], hspace=0.16, left=0.075, right=0.935, top=0.815, bottom=0.07
        )
        axes = [figure.add_subplot(grid[0])]
        axes += [figure.add_subplot(grid[row], sharex=axes[0]) for row in (1, 2, 3)]
        axes[0].set_xlim(0, end)
        _weights(axes[0], story, origin, end)
        _latency(axes[1], series)
        _errors(axes[2], series, end)
        _requests(axes[3], series, end)
        for axis in axes:
            _style(axis, last=axis is axes[-1])
        _moments(figure, axes, story.moments(), origin)
        figure.text(0.075, 0.965, title, fontsize=17, fontweight="bold", color=_INK, va="center")
        subtitle = f"{len(records):,} requests, open loop · 2 s windows · latency as clients saw it"
        figure.text(0.075, 0.935, subtitle, fontsize=10.5, color=_QUIET, va="center")
        _legend(figure, list(series))
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Writes the picture as PNG."""
    figure.savefig(path, format="png", dpi=110, facecolor="white")


def svg(figure: Figure) -> str:
    """The picture as an SVG element, to stand inside HTML."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _style(axis: Any, *, last: bool) -> None:
    axis.grid(visible=True, color=_GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#BBBBBB")
    axis.tick_params(colors=_INK, labelsize=9, length=3, labelbottom=last)
    axis.yaxis.label.set_color(_INK)
    if last:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x) // 60}:{int(x) % 60:02d}"))
        low, high = axis.get_xlim()
        step = next((step for step in (5, 10, 15, 30, 60, 120, 300) if (high - low) / step <= 16), 600)
        axis.xaxis.set_major_locator(MultipleLocator(step))
        axis.set_xlabel("minutes since the load began", color=_INK, fontsize=10)


def _weights(axis: Any, story: Story, origin: float, end: float) -> None:
    axis.set_ylabel("weight of the\ncandidate, %")
    axis.set_ylim(0, 112)
    axis.set_yticks([0, 25, 50, 75, 100])
    changes = [(at - origin, version, weight) for at, version, weight in story.weights()]
    stops = [at for at, _, _ in changes[1:]] + [end]
    labelled_until = -math.inf
    for (at, version, weight), stop in zip(changes, stops, strict=True):
        if not weight or stop <= 0 or at >= end:
            continue
        start, stop = max(at, 0.0), min(stop, end)
        colour = _COLOURS.get(version, _INK)
        axis.fill_between([start, stop], 0, weight, color=colour, alpha=0.25, linewidth=0)
        axis.plot([start, start, stop, stop], [0, weight, weight, 0], color=colour, linewidth=2)
        wide_enough = stop - start > end * 0.02 or not labelled_until > -math.inf
        if start >= labelled_until and wide_enough:
            axis.text(start + end * 0.004, weight + 4, f"{weight} %", color=colour, fontsize=9, fontweight="bold")
            labelled_until = start + end * 0.035


def _latency(axis: Any, series: Series) -> None:
    axis.set_ylabel("p99 latency, ms")
    axis.set_yscale("log")
    top = SLO_MS
    for version, boxes in series.items():
        if version == NOBODY:
            continue
        points = [(at, figures(rows).p99) for at, rows in boxes]
        points = [(at, value) for at, value in points if not math.isnan(value)]
        top = max([top, *(value for _, value in points)])
        for piece in _pieces(points):
            axis.plot(
                [at for at, _ in piece],
                [value for _, value in piece],
                color=_COLOURS.get(version, _INK),
                marker=_MARKERS.get(version, "o"),
                markersize=3.6,
                linewidth=1.4,
                label=version,
                zorder=4 if version == "v3" else 3,
            )
    axis.axhline(SLO_MS, color=_INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=2)
    axis.annotate(
        f"SLO {SLO_MS:.0f} ms",
        xy=(1, SLO_MS),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=_INK,
    )
    axis.set_ylim(1, top * 1.8)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _pieces(points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Cuts a line where a version answered nothing for a while."""
    result: list[list[tuple[float, float]]] = []
    for point in points:
        if not result or point[0] - result[-1][-1][0] > 2.5 * WINDOW_SECONDS:
            result.append([])
        result[-1].append(point)
    return result


def _errors(axis: Any, series: Series, end: float) -> None:
    axis.set_ylabel("failed, % of the\nversion's requests")
    worst = 0.0
    everybody: dict[float, int] = defaultdict(int)
    for boxes in series.values():
        for at, rows in boxes:
            everybody[at] += len(rows)
    for version, boxes in series.items():
        shares = [
            (at, 100 * sum(r.failed for r in rows) / (everybody[at] if version == NOBODY else len(rows)))
            for at, rows in boxes
        ]
        worst = max([worst, *(share for _, share in shares)])
        for piece in _pieces(shares):
            axis.plot(
                [at for at, _ in piece],
                [share for _, share in piece],
                color=_COLOURS.get(version, _INK),
                marker=_MARKERS.get(version, "o"),
                markersize=3,
                linewidth=1.4,
                clip_on=False,
            )
    if worst == 0:
        axis.set_ylim(-0.05, 1)
        axis.text(
            end / 2, 0.55, "not one request failed", ha="center", va="center", color=_QUIET, fontsize=11, bbox=_PLATE
        )
    else:
        axis.set_ylim(-worst * 0.04, worst * 1.15)


def _requests(axis: Any, series: Series, end: float) -> None:
    axis.set_ylabel("answered, requests/s")
    count = max(1, math.ceil(end / WINDOW_SECONDS))
    middles = [(index + 0.5) * WINDOW_SECONDS for index in range(count)]
    stack = []
    for boxes in series.values():
        found = {round(at / WINDOW_SECONDS - 0.5): len(rows) / WINDOW_SECONDS for at, rows in boxes}
        stack.append([found.get(index, 0.0) for index in range(count)])
    if count > 1:  # the last window is cut off by the end
        middles, stack = middles[:-1], [row[:-1] for row in stack]
    axis.stackplot(middles, *stack, colors=[_COLOURS.get(v, _INK) for v in series], alpha=0.75, linewidth=0)
    axis.set_ylim(0, None)


def _moments(figure: Figure, axes: list[Any], moments: list[Moment], origin: float) -> None:
    """Vertical lines through all panels, with labels above them in as many rows as it takes not to overlap."""
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    occupied: list[float] = []  # right edge of the last label in each row, pixels
    for moment in moments:
        at = moment.at - origin
        low, high = axes[0].get_xlim()
        if moment.kind == "weight" or not low <= at <= high:
            continue
        sign, colour = _DECISIONS.get(moment.kind, ("▸", _QUIET))
        decided = moment.kind in _DECISIONS
        for axis in axes:
            axis.axvline(
                at, color=colour, linewidth=1.5 if decided else 1.0, linestyle="-" if decided else ":", zorder=1
            )
        label = axes[0].annotate(
            f"{sign} {moment.label}",
            xy=(at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=9.5,
            fontweight="bold" if decided else "normal",
            color=colour if decided else "#555555",
            va="center",
            bbox=_PLATE,
            zorder=6,
            annotation_clip=False,
        )
        box = label.get_window_extent(renderer)
        overhang = max(0.0, box.x1 - figure.bbox.x1 + 4)
        left, right = box.x0 - overhang, box.x1 - overhang
        row = next((i for i, edge in enumerate(occupied) if edge + 10 < left), len(occupied))
        occupied[row : row + 1] = [right]
        points = 72 / figure.dpi
        label.set_position((-overhang * points + 3, 11 + 16 * row))
        axes[0].annotate(  # a thin stem from the panel up to its label
            "",
            xy=(at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4 + 16 * row),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0},
            zorder=5,
            annotation_clip=False,
        )


def _legend(figure: Figure, versions: list[str]) -> None:
    handles = [
        Line2D([], [], color=_COLOURS.get(v, _INK), marker=_MARKERS.get(v, "o"), linewidth=2.2, markersize=6, label=v)
        for v in versions
    ]
    figure.legend(
        handles=handles,
        loc="center right",
        bbox_to_anchor=(0.94, 0.935),
        ncols=len(handles),
        frameon=False,
        fontsize=11,
        handlelength=1.8,
        columnspacing=1.6,
    )
