"""Headers and cookies as HTTPRoute matches.

Expressions mean the same in RE2, in PCRE and in Python, and are written so that it does not matter whether a gateway
looks for them in the value or takes them for the whole of it: the Gateway API leaves both open.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from serinus.api.matching import CookieMatch, Match
from serinus.api.segments import Audience
from serinus.objects.context import Object
from serinus.objects.segments import expression

ANY = ".+"


def header_matches(
    match: Match | None, cookies: Sequence[tuple[str, str]] = (), headers: Sequence[tuple[str, str]] = ()
) -> list[Object]:
    """`match`, and cookies and headers with values as expressions, as HTTPRoute header matches."""
    segment = match.hash if isinstance(match, Audience) else None
    signs = list(headers)
    if segment is not None:
        # A route may name a header once only, and the first of two would win.
        same = [sign for sign in signs if sign[0].lower() == segment.header.lower()]
        signs = [(segment.header, expression(segment, same[0][1] if same else None))] + [
            sign for sign in signs if sign not in same
        ]
    found: list[Object] = [{"type": "RegularExpression", "name": name, "value": value} for name, value in signs]
    for header in match.headers if match else ():
        if header.value is None:
            found.append({"type": "RegularExpression", "name": header.name, "value": ANY})
        else:
            found.append({"type": "Exact", "name": header.name, "value": header.value})
    pairs = list(cookies)
    if match and match.cookie:
        pairs.insert(0, (match.cookie.name, value_of(match.cookie)))
    if pairs:
        # A route may name a header once only, so several cookies are one expression.
        found.append({"type": "RegularExpression", "name": "Cookie", "value": cookie_expression(pairs)})
    return found


def value_of(cookie: CookieMatch) -> str:
    """An expression for the values of a cookie that are meant."""
    return "[^;]+" if cookie.value is None else escape(cookie.value)


def cookie_expression(cookies: Sequence[tuple[str, str]]) -> str:
    """An expression for a Cookie header that holds all of these, in any order. Values are expressions.

    >>> cookie_expression([("group", "beta")])
    '^(.*; *)?group=beta(;.*)?$'
    """
    pairs = [f"{escape(name)}={value}" for name, value in cookies]
    orders = ["(;.*)?; *".join(order) for order in itertools.permutations(pairs)]
    body = orders[0] if len(orders) == 1 else f"({'|'.join(orders)})"
    return f"^(.*; *)?{body}(;.*)?$"


def escape(text: str) -> str:
    """`text` as an expression for itself, by character classes where Python's own escapes are no RE2."""
    return re.sub(r"[.^$*+?()\[\]{}|\\]", lambda found: _LITERAL.get(found[0], f"[{found[0]}]"), text)


_LITERAL = {"^": r"\^", "\\": r"\\", "[": r"\[", "]": r"\]"}
