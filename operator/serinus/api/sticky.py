"""Users who stay with their version while a release is under way: `spec.release.sticky`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.matching import CookieName, HeaderName
from serinus.api.units import Duration, Limits

MAX_SHARES = 12
"""Steps of a release whose users are told apart by a cookie: an HTTPRoute's rule holds 16 backends."""


class StickyCookie(ApiModel):
    """A cookie that the gateway gives to users with their first answer in a release."""

    name: CookieName
    """Name of the cookie. It must be the release's own: never one that the application sets."""
    ttl: Annotated[
        Duration,
        Limits(Duration, ">=", "1m", "write 1m or more, for example 1d"),
        Limits(Duration, "<=", "52w", "write 52w or less"),
    ] = Duration("1d")
    """How long it lasts. Make it longer than the release: a user whose cookie is gone draws again."""


class Digits(StrEnum):
    DECIMAL = "Decimal"
    HEX = "Hex"


class StickyHeader(ApiModel):
    """A header that names the user. Its last two digits decide, so they must be spread evenly."""

    name: HeaderName
    """Name of the header, for example X-User-Id."""
    digits: Digits = Digits.DECIMAL
    """Decimal: the value ends in 00 to 99, as numbers do. Hex: in 00 to ff, as UUIDs and hashes do."""


class Sticky(ApiModel):
    """How users are recognised. Requests that carry no sign are split one by one."""

    cookie: StickyCookie | None = None
    """By a cookie that the gateway sets. For browsers, and clients with a cookie jar."""
    header: StickyHeader | None = None
    """By a header that clients send anyway. Nothing is stored anywhere."""
    rules = (Cel("has(self.cookie) != has(self.header)", "write either cookie or header"),)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.cookie is None) == (self.header is None):
            raise PydanticCustomError("sticky", "write either cookie or header")
        return self
