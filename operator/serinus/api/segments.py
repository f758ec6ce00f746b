"""Who takes part in an experiment: users by header, by cookie, or by a share of their ids."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.matching import HeaderName, Match
from serinus.api.sticky import Digits

_ENDS = "a segment ends at 100: make start and percent at most 100 together"
_ID = "a hash is read from a header with an id in it, for example X-User-Id: cookies are matched by cookie"
_ONCE = "headers names the header of hash: a request has to carry the id anyway, remove it from headers"
_NOTHING = "write headers, cookie or hash: a match of nothing would take everybody"


class HashSegment(ApiModel):
    """A share of the users, by two digits of an id that is spread evenly: a UUID, or a hash in hexadecimal digits.

    The last two digits divide users between versions (`release.sticky.header`), so the two before them are read here:
    both may look at the same header. The gateway compares digits and computes no hash.
    """

    header: HeaderName
    """Name of the header, for example X-User-Id. Requests without it, or whose value does not end in four digits, take
    no part."""
    digits: Digits = Digits.HEX
    """Hex: the id ends in hexadecimal digits, as random UUIDs and hashes do. Decimal: in decimal ones, as long random
    numbers do."""
    percent: Annotated[int, Field(ge=1, le=99)]
    """Percent of the ids, rounded to hundredths (Hex: to 1/256). More of them take nobody out."""
    start: Annotated[int, Field(ge=0, le=99)] = 0
    """Percent of the ids that come before. Segments 0 to 30 and 30 to 60 share nobody."""
    rules = (
        Cel("!has(self.percent) || self.?start.orValue(0) + self.percent <= 100", _ENDS, field_path=".percent"),
        Cel("!has(self.header) || self.header.lowerAscii() != 'cookie'", _ID, field_path=".header"),
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.start + self.percent > 100:
            raise PydanticCustomError("hash", _ENDS)
        if self.header.lower() == "cookie":
            raise PydanticCustomError("hash", _ID)
        return self


class Audience(Match):
    """Requests that carry all of these."""

    hash: HashSegment | None = None
    """And whose id falls into this segment."""
    rules = (
        Cel("has(self.cookie) || has(self.hash) || (has(self.headers) && size(self.headers) > 0)", _NOTHING),
        *Match.rules[1:],
        Cel(
            "!has(self.hash) || !has(self.hash.header) || !has(self.headers) || self.headers.all(h,"
            " h.name.lowerAscii() != self.hash.header.lowerAscii())",
            _ONCE,
            field_path=".headers",
        ),
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        """In place of the rule of `Match` of this name; its others hold here too."""
        if not self.headers and self.cookie is None and self.hash is None:
            raise PydanticCustomError("match", _NOTHING)
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.hash and self.hash.header.lower() in {header.name.lower() for header in self.headers}:
            raise PydanticCustomError("match", _ONCE)
        return self
