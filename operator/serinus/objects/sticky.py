"""Sticky users as rules and backends of the HTTPRoute, with nothing but the Gateway API's own means.

Gateways' session persistence is not used: it ties a user to a pod, so that new pods stay idle and a step of weight
reaches new users only; and Envoy draws the version anew for each request before it looks at the session.
"""

from __future__ import annotations

from itertools import groupby

from serinus.api.matching import Match
from serinus.api.segments import Audience
from serinus.objects.context import Object
from serinus.objects.digits import any_digit, either_case, second_digits
from serinus.objects.matches import ANY, escape, header_matches, value_of
from serinus.objects.segments import expression, fits
from serinus.release.sticky import ByCookie, ByHeader, Split

Sign = tuple[str, str]
"""A header or cookie and the expression for its value."""


def recognised(split: Split) -> list[tuple[str, Sign, bool]]:
    """Rules for users who carry a sign: revision, the sign, and whether it is a cookie. The first match wins."""
    if isinstance(split, ByHeader):
        rules = [(split.live, (split.name, f"^.*{any_digit(split.base)}{{2}}$"), False)]
        if split.chosen:
            rules.insert(0, (split.candidate, (split.name, f"^.*({endings(split)})$"), False))
        return rules
    return [
        (revision, (split.name, f"({'|'.join(escape(group.value) for group in groups)})"), True)
        for revision, groups in groupby(split.groups, key=lambda group: group.revision)
    ]


def drawn(split: ByCookie, path: str) -> list[tuple[str, int, Object]]:
    """Backends for users without a sign: revision, weight, and the filter that gives them theirs."""
    return [(group.revision, group.share, _gives(split, group.value, path)) for group in split.groups]


def both(pinned: Match, some: Match, split: Split | None) -> list[Object] | None:
    """Header matches for who is pinned and takes part in an experiment; None where nobody can be both."""
    headers = {header.name.lower(): header for header in some.headers}
    for header in pinned.headers:
        other = headers.get(header.name.lower())
        if other is not None and None not in (header.value, other.value) and header.value != other.value:
            return None
        if other is None or other.value is None:
            headers[header.name.lower()] = header
    sign = [(split.name, ANY)] if isinstance(split, ByHeader) and split.name.lower() not in headers else []
    segment = some.hash if isinstance(some, Audience) else None
    if segment is not None:
        same = headers.get(segment.header.lower())
        if same is None or same.value is None:
            headers.pop(segment.header.lower(), None)
            others = [each for each in sign if each[0].lower() != segment.header.lower()]
            sign = [(segment.header, expression(segment)), *others]
        elif not fits(segment, same.value):
            return None
    cookie = [(some.cookie.name, value_of(some.cookie))] if some.cookie and some.cookie != pinned.cookie else []
    union = pinned.model_copy(update={"headers": list(headers.values())})
    return header_matches(union, cookies=cookie, headers=sign)


def endings(split: ByHeader) -> str:
    """An expression for the two digits that go to the candidate, as short as ten or sixteen alternatives."""
    seconds = second_digits(sorted(split.chosen), split.base)
    return "|".join(f"{_class(first)}{_class(second)}" for first, second in seconds.items())


def _class(digits: str) -> str:
    both = either_case(digits)
    return both if len(both) == 1 else f"[{both}]"


def _gives(split: ByCookie, value: str, path: str) -> Object:
    cookie = f"{split.name}={value}; Path={path}; Max-Age={split.seconds}; HttpOnly; SameSite=Lax"
    return {
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": cookie}]},
    }
