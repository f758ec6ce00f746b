"""What people see while the demo runs: a live table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fraud.records import Figures, Record, figures
from fraud.story import Snapshot

WINDOW_SECONDS = 10.0
PLAIN_EVERY_SECONDS = 5.0
_STYLES = {"v1": "blue", "v2": "green", "v3": "red", "v4": "magenta", "v5": "yellow"}


class View(Protocol):
    """Shows the state of affairs."""

    def note(self, text: str) -> None:
        """A line that stays: a step of the demo, an Event."""

    def show(self, seen: Snapshot | None, recent: Sequence[Record]) -> None:
        """The present state; `recent` are the records of the last WINDOW_SECONDS."""

    def close(self) -> None:
        """Ends the view; what was noted stays on the screen."""


def make() -> View:
    """The view that fits standard output."""
    return LiveView() if sys.stdout.isatty() else PlainView()


def by_version(records: Sequence[Record]) -> dict[str, Figures]:
    """Figures per version, those without an answer as `-`."""
    versions = sorted({r.version for r in records})
    return {v or "-": figures(r for r in records if r.version == v) for v in versions}


def milliseconds(value: float) -> str:
    """`12.3 ms`, or `-` for none."""
    return "-" if math.isnan(value) else f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def percent(value: float) -> str:
    """A share as `0.25 %`; a plain `0 %` for none at all."""
    return "0 %" if value == 0 else f"{100 * value:.2f} %"


class PlainView:
    """Lines for a log file."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = -math.inf

    def note(self, text: str) -> None:
        """See View."""
        print(f"[{self._clock()}] {text}", flush=True)

    def show(self, seen: Snapshot | None, recent: Sequence[Record]) -> None:
        """See View."""
        if time.monotonic() - self._shown < PLAIN_EVERY_SECONDS:
            return
        self._shown = time.monotonic()
        parts = []
        if seen is not None:
            candidate = f" candidate {seen.candidate} at {seen.weight} %" if seen.candidate else ""
            parts.append(f"{seen.phase or 'no status':<11} live {seen.live or '-'}{candidate}")
        for version, found in by_version(recent).items():
            parts.append(
                f"{version}: {found.requests / WINDOW_SECONDS:.0f}/s p99 {milliseconds(found.p99)} "
                f"failed {percent(found.error_rate)}"
            )
        print(f"[{self._clock()}]   {' | '.join(parts)}", flush=True)

    def close(self) -> None:
        """See View."""

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60}:{seconds % 60:02d}"


class LiveView:
    """A table that redraws itself."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._started = time.monotonic()
        self._live.start()

    def note(self, text: str) -> None:
        """See View."""
        seconds = int(time.monotonic() - self._started)
        self._console.print(f"[dim]{seconds // 60}:{seconds % 60:02d}[/dim]  {escape(text)}", highlight=False)

    def show(self, seen: Snapshot | None, recent: Sequence[Record]) -> None:
        """See View."""
        self._live.update(render(seen, recent))

    def close(self) -> None:
        """See View."""
        self._live.stop()


def render(seen: Snapshot | None, recent: Sequence[Record]) -> Panel:
    """The live panel."""
    head = Text("waiting for a status", style="dim")
    if seen is not None:
        head = Text.assemble(
            ("phase ", "dim"),
            (f"{seen.phase or '-':<12}", "bold"),
            ("live ", "dim"),
            (f"{seen.live or '-':<4}", "bold " + _STYLES.get(seen.live, "")),
            ("candidate ", "dim"),
            (f"{seen.candidate or '-':<4}", "bold " + _STYLES.get(seen.candidate, "")),
            ("weight ", "dim"),
            (_bar(seen.weight), _STYLES.get(seen.candidate, "")),
            (f" {seen.weight:>3} %", "bold"),
            ("   operator says p99 ", "dim"),
            seen.p99 or "-",
            (" errors ", "dim"),
            seen.errors or "-",
        )
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("version", "requests/s", "p50", "p95", "p99", "failed"):
        table.add_column(name, justify="left" if name == "version" else "right", header_style="dim")
    for version, found in by_version(recent).items():
        table.add_row(
            Text(version, style="bold " + _STYLES.get(version, "")),
            f"{found.requests / WINDOW_SECONDS:.1f}",
            milliseconds(found.p50),
            milliseconds(found.p95),
            Text(milliseconds(found.p99), style="bold red" if found.p99 > 50 else ""),
            Text(f"{found.failed} ({percent(found.error_rate)})", style="bold red" if found.failed else ""),
        )
    return Panel(Group(head, Text(), table), title=f"the last {WINDOW_SECONDS:.0f} s, as clients see it", expand=False)


def _bar(weight: int, width: int = 20) -> str:
    full = round(width * weight / 100) if weight else 0
    full = max(full, 1) if weight else 0
    return "█" * full + "░" * (width - full)
