"""Any nested value as HTML tables: parts of a release that a page has no picture of its own for."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

_MOST = 50
"""Rows of one table."""
_DEEPEST = 6


def words(name: str) -> str:
    """A camelCase name as words: `smokeTest` is `Smoke test`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: " " + found[1].lower(), name).capitalize()


def html(value: Any, depth: int = 0) -> Markup:
    """Maps as rows, lists of maps as tables with a header, the rest as text."""
    if depth > _DEEPEST:
        return Markup("...")
    if isinstance(value, dict):
        return _map(value, depth)
    if isinstance(value, list):
        if value and all(isinstance(each, dict) for each in value):
            return _table(value, depth)
        shown = Markup(", ").join(html(each, depth + 1) for each in value[:_MOST])
        return shown + (Markup(", ... ({} in all)").format(len(value)) if len(value) > _MOST else "")
    if isinstance(value, bool):
        return Markup.escape("yes" if value else "no")
    if isinstance(value, float):
        return Markup.escape(f"{value:.6g}")
    return Markup.escape("" if value is None else str(value))


def _map(value: dict[str, Any], depth: int) -> Markup:
    rows = [
        Markup("<tr><th>{}</th><td>{}</td></tr>").format(words(str(key)), html(each, depth + 1))
        for key, each in list(value.items())[:_MOST]
        if each not in (None, {}, [])
    ]
    return Markup("<table>{}</table>").format(Markup("").join(rows))


def _table(rows: list[dict[str, Any]], depth: int) -> Markup:
    names = list(dict.fromkeys(key for row in rows[:_MOST] for key in row))
    head = Markup("").join(Markup("<th>{}</th>").format(words(str(name))) for name in names)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(html(row.get(name), depth + 1)) for name in names)
        )
        for row in rows[:_MOST]
    )
    more = Markup("<p>... {} in all</p>").format(len(rows)) if len(rows) > _MOST else Markup()
    return Markup("<table><tr>{}</tr>{}</table>{}").format(head, body, more)
