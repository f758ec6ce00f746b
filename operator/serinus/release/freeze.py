"""The switch that stops every release of a cluster: the ConfigMap `serinus-freeze` in the operator's namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

CONFIG_MAP = "serinus-freeze"
_SHOWN = 200


@dataclass(frozen=True)
class Freeze:
    """Releases neither start nor gain weight. Roll-backs go on."""

    reason: str
    until: datetime | None = None
    """It ends by itself then."""
    namespaces: frozenset[str] = frozenset()
    """Where it holds; empty: everywhere."""

    @classmethod
    def of(cls, data: Mapping[str, str] | None) -> Self:
        """The freeze that a ConfigMap's data describe: `reason`, `until` (ISO 8601 with an offset), `namespaces`.

        All are optional. What cannot be read makes the freeze wider, never narrower: it is a safety switch.
        """
        data = data or {}
        reason = (data.get("reason") or "no reason was given").strip()[:_SHOWN]
        until = None
        if text := data.get("until", "").strip():
            try:
                until = datetime.fromisoformat(text)
            except ValueError:
                reason += f" (until {text[:40]!r} is no date such as 2026-12-27T08:00:00+01:00: it ends when removed)"
            else:
                until = until if until.tzinfo else until.replace(tzinfo=UTC)
        names = data.get("namespaces", "").replace(",", " ").split()
        return cls(reason, until, frozenset(names))

    def holds(self, namespace: str, now: datetime) -> bool:
        """Whether releases in `namespace` are frozen."""
        return (not self.namespaces or namespace in self.namespaces) and (self.until is None or now < self.until)

    def told(self) -> str:
        """For people."""
        return f"{self.reason}; until {self.until:%Y-%m-%d %H:%M %Z}" if self.until else self.reason
