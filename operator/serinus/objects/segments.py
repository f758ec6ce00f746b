"""Segments of users by the digits of their ids, as header matches by regular expression.

A hash would need an extension of one gateway (Envoy Gateway: Lua or an external processor). Ids that are spread evenly
need none: a share of all digits is a share of all users, and HTTPRoute's own matches tell them, in every gateway that
has them by regular expression.
"""

from __future__ import annotations

import re

from serinus.api.segments import HashSegment
from serinus.api.sticky import Digits
from serinus.objects.digits import any_digit, either_case, second_digits

_BASES = {Digits.DECIMAL: 10, Digits.HEX: 16}


def values(segment: HashSegment) -> range:
    """Values of the two digits that belong to it; segments that touch share none and leave none out."""
    count = _BASES[segment.digits] ** 2
    return range(count * segment.start // 100, count * (segment.start + segment.percent) // 100)


def expression(segment: HashSegment, sign: str | None = None) -> str:
    """For the whole id.

    Args:
        sign: an expression for the same header that looks at the last two digits; a route names a header once only.
    """
    last = f"{any_digit(_BASES[segment.digits])}{{2}}"
    if sign is not None and sign.startswith("^.*"):
        last = sign.removeprefix("^.*").removesuffix("$")
    return f"^.*({_pairs(segment)}){last}$"


def fits(segment: HashSegment, value: str) -> bool:
    """Whether an id belongs to the segment."""
    return re.fullmatch(expression(segment), value) is not None


def _pairs(segment: HashSegment) -> str:
    """An expression for the two digits, in at most three alternatives: a range has two ends and a middle."""
    firsts: dict[str, str] = {}
    for first, allowed in second_digits(values(segment), _BASES[segment.digits]).items():
        firsts[allowed] = firsts.get(allowed, "") + first
    return "|".join(f"[{either_case(first)}][{either_case(allowed)}]" for allowed, first in firsts.items())
