"""`spec.release.windows`: when users may get more of a new version."""

from __future__ import annotations

import zoneinfo
from enum import StrEnum
from functools import cache
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel, Matching


class Day(StrEnum):
    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


TimeOfDay = Annotated[
    str,
    Matching("^([01][0-9]|2[0-3]):[0-5][0-9]$", "write hours and minutes, from 00:00 to 23:59, for example 09:00", 5),
]
"""Hours and minutes on the wall clock."""


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _known(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError(
            "time_zone",
            "time zone {name} is not known: write one of the IANA database, for example Europe/Berlin or UTC",
            {"name": name},
        )
    return name


TimeZone = Annotated[
    str,
    Matching(
        "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$",
        "write a time zone of the IANA database, for example Europe/Berlin or UTC",
        64,
    ),
    AfterValidator(_known),
]
"""A time zone by name."""


class Window(ApiModel):
    """A time of the week, on the wall clock of a time zone."""

    days: Annotated[list[Day], Field(min_length=1, max_length=7)] = list(Day)
    """Days on which the window opens. Default: every day."""
    start: TimeOfDay
    """When it opens."""
    end: TimeOfDay
    """When it closes; on the next day where it is not after `start`."""
    time_zone: TimeZone = "UTC"
    """Whose wall clock is meant, for example Europe/Berlin."""
    rules = (
        Cel(
            "self.start != self.end",
            "start and end must differ: for a whole day write 00:00 and 23:59, or leave the window out",
            field_path=".end",
        ),
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.start == self.end:
            raise PydanticCustomError("window", "start and end must differ")
        return self
