"""Expressions for cookies and headers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.api.matching import Match
from serinus.objects.matches import cookie_expression, escape, header_matches

NAMES = st.text("abcXYZ019!#$%&'*+.^_|~-", min_size=1, max_size=8)
VALUES = st.text("abcXYZ019!#$%&'()*+-./:<=>?@[]^_`{|}~", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("header", "matched"),
    [
        ("group=beta", True),
        ("a=b; group=beta", True),
        ("a=b;group=beta; c=d", True),
        ("group=beta2", False),
        ("mygroup=beta", False),
        ("a=group=beta", False),
        ("group=alpha; x=1", False),
    ],
)
def test_a_cookie_among_others(header: str, matched: bool) -> None:
    assert bool(re.search(cookie_expression([("group", "beta")]), header)) is matched


@given(name=NAMES, value=VALUES, others=st.lists(st.tuples(NAMES, VALUES), max_size=3))
def test_an_expression_finds_what_it_was_made_from_and_nothing_else(
    name: str, value: str, others: list[tuple[str, str]]
) -> None:
    expression = cookie_expression([(name, escape(value))])
    rest = [f"{other}={text}" for other, text in others]
    assert re.fullmatch(expression, "; ".join([*rest, f"{name}={value}"]))
    without = [pair for pair in rest if pair != f"{name}={value}"]
    assert not re.search(expression, "; ".join(without))


@given(order=st.permutations([("a", "1"), ("b", "2"), ("c", "3")]))
def test_two_cookies_in_any_order(order: list[tuple[str, str]]) -> None:
    expression = cookie_expression([("a", "1"), ("b", "2")])
    assert re.fullmatch(expression, "; ".join(f"{name}={value}" for name, value in order))
    assert not re.fullmatch(expression, "; ".join(f"{name}={value}" for name, value in order if name != "b"))


def test_matches_of_a_route() -> None:
    match = Match.model_validate({"headers": [{"name": "X-A", "value": "1"}, {"name": "X-B"}], "cookie": {"name": "c"}})
    assert header_matches(match) == [
        {"type": "Exact", "name": "X-A", "value": "1"},
        {"type": "RegularExpression", "name": "X-B", "value": ".+"},
        {"type": "RegularExpression", "name": "Cookie", "value": "^(.*; *)?c=[^;]+(;.*)?$"},
    ]
