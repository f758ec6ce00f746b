"""Charts as inline SVG: no script, no outside resource, colours from the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup, escape

from serinus.api.units import Duration

WIDTH, HEIGHT = 760, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 30
_GRID = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>')
_LIMIT = Markup('<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="limit" x="{}" y="{}">{}</text>')
Points = Sequence[tuple[datetime, float]]


@dataclass(frozen=True)
class Band:
    """A stretch of time with a name, behind the lines."""

    start: datetime
    end: datetime
    name: str


class _Scale:
    """From time and value to the picture's coordinates."""

    def __init__(self, start: datetime, end: datetime, low: float, high: float) -> None:
        self.start, self.seconds = start, max((end - start).total_seconds(), 1e-3)
        self.low, self.span = low, (high - low) or 1.0

    def x(self, at: datetime) -> float:
        share = (at - self.start).total_seconds() / self.seconds
        return round(_LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / self.span
        return round(HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * (HEIGHT - _TOP - _BOTTOM), 1)


def chart(
    title: str,
    lines: Mapping[str, Points],
    *,
    limits: Mapping[str, float] | None = None,
    bands: Sequence[Band] = (),
    bounds: tuple[float, float] | None = None,
    unit: str = "",
    stepped: bool = False,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Markup:
    """Lines over time; empty where there is nothing to draw.

    Args:
        title: read out to those who cannot see it.
        lines: points by name, oldest first.
        limits: horizontal lines by name.
        bounds: smallest and largest value shown; from the values where left out.
        stepped: a value holds until the next one.
        start: left edge; the first point where left out.
        end: right edge; the last point where left out.
    """
    times = [at for points in lines.values() for at, _ in points]
    if not times:
        return Markup()
    values = [value for points in lines.values() for _, value in points] + list((limits or {}).values())
    low, high = bounds or (min(0.0, *values), max(values) * 1.1 or 1.0)
    scale = _Scale(min([*times, *([start] if start else [])]), max([*times, *([end] if end else [])]), low, high)
    parts = [_bands(bands, scale), _axes(scale, low, high, unit)]
    for name, value in (limits or {}).items():
        parts.append(
            _LIMIT.format(
                _LEFT, WIDTH - _RIGHT, scale.y(value), scale.y(value), WIDTH - _RIGHT - 4, scale.y(value) - 4, name
            )
        )
    for number, (name, points) in enumerate(lines.items()):
        parts.append(_line(number, name, points, scale, stepped, end))
    if len(lines) > 1:
        parts.append(_legend(list(lines)))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
        WIDTH, HEIGHT, title, title, Markup("").join(parts)
    )


def _bands(bands: Sequence[Band], scale: _Scale) -> Markup:
    drawn = []
    for number, band in enumerate(bands):
        left, right = scale.x(band.start), scale.x(band.end)
        drawn.append(
            Markup('<rect class="band b{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                number % 2, left, _TOP, max(0.0, round(right - left, 1)), HEIGHT - _TOP - _BOTTOM, band.name
            )
        )
        if right - left > 7 * len(band.name):
            drawn.append(Markup('<text class="band" x="{}" y="{}">{}</text>').format(left + 4, _TOP + 11, band.name))
    return Markup("").join(drawn)


def _axes(scale: _Scale, low: float, high: float, unit: str) -> Markup:
    drawn = []
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        drawn.append(
            _GRID.format(
                _LEFT, WIDTH - _RIGHT, scale.y(value), scale.y(value), _LEFT - 6, scale.y(value) + 4,
                f"{value:.3g}{unit}",
            )
        )  # fmt: skip
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        after = f"+{Duration.of(round(share * scale.seconds))}" if share else scale.start.strftime("%H:%M:%S")
        drawn.append(
            Markup('<text class="time" text-anchor="{}" x="{}" y="{}">{}</text>').format(anchor, x, HEIGHT - 10, after)
        )
    return Markup("").join(drawn)


def _line(number: int, name: str, points: Points, scale: _Scale, stepped: bool, end: datetime | None) -> Markup:
    path: list[str] = []
    for at, value in points:
        x, y = scale.x(at), scale.y(value)
        path.append(f"M{x} {y}" if not path else f"H{x}V{y}" if stepped else f"L{x} {y}")
    if stepped and end is not None:
        path.append(f"H{scale.x(end)}")
    dots = Markup("").join(
        Markup('<circle class="l{}" cx="{}" cy="{}" r="2.5"><title>{}: {:.6g}, {}</title></circle>').format(
            number % 4, scale.x(at), scale.y(value), name, value, at.strftime("%Y-%m-%d %H:%M:%S")
        )
        for at, value in points
    )
    return Markup('<path class="l{}" d="{}"/>{}').format(number % 4, " ".join(path), dots)


def _legend(names: Sequence[str]) -> Markup:
    drawn, x = [], float(_LEFT + 8)
    for number, name in enumerate(names):
        drawn.append(
            Markup('<rect class="k{}" x="{}" y="{}" width="10" height="10"/><text x="{}" y="{}">{}</text>').format(
                number % 4, x, _TOP + 18, x + 14, _TOP + 27, name
            )
        )
        x += 30 + 6.6 * len(escape(name))
    return Markup("").join(drawn)
