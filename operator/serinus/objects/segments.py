"""Segments of users by the digits of their ids, as header matches by regular expression.

A hash would need an extension of one gateway (Envoy Gateway: Lua or an external processor). Ids that are spread evenly
need none: a share of all digits is a share of all users, and HTTPRoute's own matches tell them, in every gateway that
has them by regular expression.
"""

from __future__ import annotations

import re

from serinus.api.segments import HashSegment
from serinus.api.sticky import Digits

_DIGITS = {Digits.DECIMAL: "0123456789", Digits.HEX: "0123456789abcdef"}
_ANY = {Digits.DECIMAL: "[0-9]", Digits.HEX: "[0-9a-fA-F]"}


def values(segment: HashSegment) -> range:
    """Values of the two digits that belong to it; segments that touch share none and leave none out."""
    count = len(_DIGITS[segment.digits]) ** 2
    return range(count * segment.start // 100, count * (segment.start + segment.percent) // 100)


def expression(segment: HashSegment, sign: str | None = None) -> str:
    """For the whole id.

    Args:
        sign: an expression for the same header that looks at the last two digits; a route names a header once only.
    """
    last = f"{_ANY[segment.digits]}{{2}}"
    if sign is not None and sign.startswith("^.*"):
        last = sign.removeprefix("^.*").removesuffix("$")
    return f"^.*({_pairs(segment)}){last}$"


def fits(segment: HashSegment, value: str) -> bool:
    """Whether an id belongs to the segment."""
    return re.fullmatch(expression(segment), value) is not None


def _pairs(segment: HashSegment) -> str:
    """An expression for the two digits, in at most three alternatives: a range has two ends and a middle."""
    digits = _DIGITS[segment.digits]
    seconds: dict[str, str] = {}
    for value in values(segment):
        first = digits[value // len(digits)]
        seconds[first] = seconds.get(first, "") + digits[value % len(digits)]
    firsts: dict[str, str] = {}
    for first, allowed in seconds.items():
        firsts[allowed] = firsts.get(allowed, "") + first
    return "|".join(f"{_class(first)}{_class(allowed)}" for allowed, first in firsts.items())


def _class(digits: str) -> str:
    return f"[{digits}{''.join(digit.upper() for digit in digits if digit.isalpha())}]"
