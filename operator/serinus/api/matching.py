"""Which users are meant: by a header or a cookie of their requests."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from serinus.api.base import ApiModel
from serinus.api.cel import Cel, Matching
from serinus.api.texts import DnsLabel, VersionName

HeaderName = Annotated[
    str,
    Matching(
        r"^[A-Za-z0-9!#$%&'*+.^_|~-]+$", "write a header's name, for example X-User-Group, without colon or space", 128
    ),
]
"""The name of a header."""

HeaderText = Annotated[
    str, Matching(r"^[!-~]([ -~]*[!-~])?$", "write visible ASCII without spaces at the ends, for example beta", 256)
]
"""The value of a header."""

CookieName = Annotated[
    str, Matching(r"^[A-Za-z0-9!#$%&'*+.^_|~-]+$", "write a cookie's name of letters, digits, - and _", 64)
]
"""The name of a cookie (RFC 6265: a token)."""

CookieText = Annotated[
    str,
    Matching(r"^[!#-+\--:<-\[\]-~]+$", "write a cookie's value without spaces, quotes, commas, ; and backslashes", 256),
]
"""The value of a cookie (RFC 6265)."""


class HeaderMatch(ApiModel):
    """A header that the request must carry."""

    name: HeaderName
    """Name of the header; upper and lower case are the same. For a cookie write `cookie`."""
    value: HeaderText | None = None
    """The exact value. Default: any."""


class CookieMatch(ApiModel):
    """A cookie that the request must carry."""

    name: CookieName
    """Name of the cookie."""
    value: CookieText | None = None
    """The exact value. Default: any."""


class Match(ApiModel):
    """Requests that carry all of these."""

    headers: Annotated[list[HeaderMatch], Field(max_length=4)] = []
    """All of these headers."""
    cookie: CookieMatch | None = None
    """And this cookie."""
    rules: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.cookie) || (has(self.headers) && size(self.headers) > 0)",
            "write headers, cookie or both: a match of nothing would take everybody",
        ),
        Cel(
            "!has(self.headers) || self.headers.all(h, h.name.lowerAscii() != 'cookie')",
            "write cookie: {name: ..., value: ...} in place of the header Cookie",
            field_path=".headers",
        ),
        Cel(
            "!has(self.headers) || self.headers.all(h,"
            " self.headers.exists_one(o, o.name.lowerAscii() == h.name.lowerAscii()))",
            "each header only once",
            field_path=".headers",
        ),
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.headers and self.cookie is None:
            raise PydanticCustomError("match", "write headers, cookie or both: a match of nothing would take everybody")
        return self

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [header.name.lower() for header in self.headers]
        if "cookie" in names:
            raise PydanticCustomError("match", "write cookie: {name: ..., value: ...} in place of the header Cookie")
        if len(set(names)) < len(names):
            raise PydanticCustomError("match", "each header only once")
        return self


class Flag(ApiModel):
    """Users who are pinned to a version, in a release and outside of one."""

    name: DnsLabel
    """Name of the flag in status and messages."""
    match: Annotated[list[Match], Field(min_length=1, max_length=4)]
    """Who is meant: requests that fulfil any of these."""
    version: VersionName
    """Where they go: `candidate`, `live`, `previous`, or a version that is kept (`serinus history`)."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """Fewest pods of a version that only flags ask for. A version with a role has its own floor."""


MAX_FLAGS = 4
"""An HTTPRoute holds 16 rules with 128 matches in all: two rules for each flag (HTTP and gRPC), the rest for the
release."""
