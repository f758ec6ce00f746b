"""The last words of the demo: a table on the terminal and one self-contained HTML page."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from fraud.live import milliseconds
from fraud.records import Record, figures
from fraud.story import Expectation, Release, Story

VERSION_HEADS = ("version", "requests", "failed", "p50", "p99", "outcome", "why")
RELEASE_HEADS = ("release", "took", "detected after", "gone after", "users' requests", "p99 before → during → after")


def seconds(value: float) -> str:
    """`12.3 s`, or `-` for none."""
    return "-" if math.isnan(value) or math.isinf(value) else f"{value:.1f} s"


def version_rows(releases: dict[str, Release]) -> list[tuple[str, ...]]:
    """One row per version, for VERSION_HEADS."""
    return [
        (
            version,
            f"{item.served.requests:,}",
            f"{item.served.failed:,}",
            milliseconds(item.served.p50),
            milliseconds(item.served.p99),
            item.outcome,
            f"{item.reason}: {item.message}" if item.message else item.reason or "-",
        )
        for version, item in releases.items()
    ]


def release_rows(releases: dict[str, Release]) -> list[tuple[str, ...]]:
    """One row per release that replaced a live version, for RELEASE_HEADS."""
    return [
        (
            version,
            seconds(item.seconds),
            seconds(item.detect_seconds),
            seconds(item.exposed_seconds) if not math.isnan(item.detect_seconds) else "-",
            f"{item.served.requests:,}",
            " → ".join(milliseconds(f.p99) for f in (item.before, item.during, item.after)),
        )
        for version, item in releases.items()
        if version != "v1"
    ]


def print_tables(console: Console, releases: dict[str, Release], kept: Sequence[Expectation]) -> None:
    """The tables on a terminal or in a log."""
    for title, heads, rows in (
        ("What each version did", VERSION_HEADS, version_rows(releases)),
        ("What each release took", RELEASE_HEADS, release_rows(releases)),
        ("What was promised", ("", "promise", "seen"), _promise_rows(kept)),
    ):
        table = Table(title=title, title_justify="left", title_style="bold")
        for head in heads:
            right = head in ("requests", "failed", "p50", "p99", "took", "detected after", "gone after")
            table.add_column(head, justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def page(
    title: str,
    picture: str,
    story: Story,
    records: Sequence[Record],
    releases: dict[str, Release],
    kept: Sequence[Expectation],
) -> str:
    """The HTML page; `picture` is an SVG element. Needs no other file."""
    origin = min((r.at for r in records), default=0.0)
    total = figures(records)
    events = [
        (_clock(at - origin), reason, message) for at, reason, message in sorted(story.events) if at >= origin - 60
    ]
    tables: list[tuple[str, tuple[str, ...], Sequence[Sequence[str]]]] = [
        ("What was promised", ("", "promise", "seen"), _promise_rows(kept)),
        ("What each version did", VERSION_HEADS, version_rows(releases)),
        ("What each release took", RELEASE_HEADS, release_rows(releases)),
        ("What Kubernetes Events said", ("at", "reason", "message"), events),
    ]
    body = "".join(_table(*table) for table in tables if table[2])
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(origin))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1320px; margin: 2rem auto; padding: 0 1.5rem }}
h1 {{ font-size: 1.5rem; margin: 0 0 .2rem }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem }}
p {{ color: #555; margin: 0 0 1rem }} svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top }}
th {{ color: #777; font-weight: 500 }} td {{ font-variant-numeric: tabular-nums }}
td:first-child {{ font-weight: 600; white-space: nowrap }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{when} · {total.requests:,} requests, {total.failed:,} failed · "detected after" runs from the first request that the
version answered to the decision, "gone after" to the last one.</p>
{picture}
{body}
</body></html>
"""


def _promise_rows(kept: Sequence[Expectation]) -> list[tuple[str, ...]]:
    return [("kept" if item.kept else "BROKEN", item.name, item.detail) for item in kept]


def _table(title: str, heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    lines = ("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{html.escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _clock(value: float) -> str:
    sign, whole = ("-" if value < 0 else ""), abs(int(value))
    return f"{sign}{whole // 60}:{whole % 60:02d}"
