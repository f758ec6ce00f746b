"""A ModelDeployment with everything that belongs to it, as the command line shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from serinus.objects.context import Object
from serinus.objects.read import Children


class CliError(Exception):
    """Something that the user can mend; the text says how."""


class UsageError(CliError):
    """Something that was said wrongly: another exit code."""


@dataclass(frozen=True)
class Picture:
    """A ModelDeployment with everything that belongs to it, as it was when it was read."""

    owner: Object
    children: Children = field(default_factory=Children)
    events: tuple[Object, ...] = ()
    """Of the ModelDeployment itself, the oldest first."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    warnings: tuple[Object, ...] = ()
    """Events of type Warning about its pods and other objects."""
    frozen: str | None = None
    """The freeze that holds its releases, where it was asked for."""

    @property
    def name(self) -> str:
        """Name of the ModelDeployment."""
        return str(self.owner["metadata"]["name"])
