"""Segments of users by the digits of their ids, as a gateway would read the route."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serinus.api.matching import Match
from serinus.api.segments import Audience, HashSegment
from serinus.api.steps import Step
from serinus.api.sticky import Sticky
from serinus.objects.context import Object
from serinus.objects.read import Children
from serinus.objects.render import render
from serinus.objects.segments import expression, fits, values
from serinus.release.observed import Pin
from serinus.release.sticky import split
from unit.objects.test_render import context, one, plan
from unit.objects.test_sticky import CANDIDATE, COOKIE, LIVE, revision, serve

STEPS = (Step(weight=5), Step(weight=50))
KINDS = st.sampled_from(["Hex", "Decimal"])
BASE = {"Hex": 16, "Decimal": 10}


def segment(percent: int, start: int = 0, digits: str = "Hex") -> HashSegment:
    return HashSegment.model_validate({"header": "X-User-Id", "percent": percent, "start": start, "digits": digits})


def rules(some: HashSegment, sticky: Sticky | None, share: int, *pins: Pin) -> list[Object]:
    """Rules of a route while an experiment with a segment is under way."""
    ctx = context()
    made = dataclasses.replace(
        plan(ctx),
        weights={LIVE: 100 - share, CANDIDATE: share},
        stable=LIVE,
        users=Audience(hash=some),
        sticky=split(sticky, STEPS, share, CANDIDATE, LIVE) if sticky else None,
        pins=pins,
    )
    found: list[Object] = one(render(ctx, made, Children()), "HTTPRoute")["spec"]["rules"]
    return found


@given(cuts=st.sets(st.integers(1, 99), max_size=5), digits=KINDS)
def test_segments_that_touch_share_nobody_and_leave_nobody_out(cuts: set[int], digits: str) -> None:
    ends = [0, *sorted(cuts), 100]
    spans = [(start, end - start) for start, end in itertools.pairwise(ends) if end - start < 100]
    parts = [values(segment(percent, start, digits)) for start, percent in spans]
    count = BASE[digits] ** 2
    if parts:
        assert sorted(itertools.chain(*parts)) == list(range(count))
    for part, (_, percent) in zip(parts, spans, strict=True):
        assert abs(len(part) / count - percent / 100) < 1 / count


@given(percent=st.integers(1, 98), start=st.integers(0, 50), digits=KINDS)
def test_a_larger_share_takes_nobody_out(percent: int, start: int, digits: str) -> None:
    percent = min(percent, 99 - start)
    assert set(values(segment(percent, start, digits))) <= set(values(segment(percent + 1, start, digits)))


@settings(deadline=None, max_examples=60)
@given(percent=st.integers(1, 99), start=st.integers(0, 98), digits=KINDS, last=st.integers(0, 99))
def test_the_expression_is_the_segment(percent: int, start: int, digits: str, last: int) -> None:
    """For every value, in upper and lower case, whether a gateway searches or compares the whole."""
    some = segment(min(percent, 100 - start), start, digits)
    pattern = re.compile(expression(some))
    form = "02x" if digits == "Hex" else "02"
    for value in range(BASE[digits] ** 2):
        text = f"7c9e{value:{form}}{last:02}"
        for written in (text, text.upper()):
            assert (pattern.fullmatch(written) is not None) == (value in values(some)) == fits(some, written)
            assert (pattern.search(written) is None) == (pattern.fullmatch(written) is None)
    assert len(pattern.pattern) < 300, "an expression has room, for the sign's too"


@pytest.mark.parametrize("text", ["", "7", "123", "a1b2z", "bob@example.com"])
def test_what_is_no_id_takes_no_part(text: str) -> None:
    assert not fits(segment(99), text)


@settings(deadline=None, max_examples=15)
@given(
    user=st.uuids(version=4),
    percent=st.integers(1, 99),
    start=st.integers(0, 98),
    shares=st.lists(st.integers(1, 99), min_size=2, max_size=4, unique=True).map(sorted),
)
def test_every_id_is_in_exactly_one_arm_and_stays(user: Any, percent: int, start: int, shares: list[int]) -> None:
    some = segment(min(percent, 100 - start), start)
    sticky = Sticky.model_validate({"header": {"name": "X-User-Id", "digits": "Hex"}})
    served = [revision(serve(rules(some, sticky, share), X_User_Id=str(user))) for share in shares]
    if not fits(some, str(user)):
        assert set(served) == {LIVE}
    assert served == sorted(served, key=[LIVE, CANDIDATE].index), "who has the candidate keeps it as the share grows"


@pytest.mark.parametrize("digits", ["Hex", "Decimal"])
@pytest.mark.parametrize("share", [10, 50])
def test_the_share_among_those_who_take_part(digits: str, share: int) -> None:
    """The segment and the arms look at digits of their own: neither tells anything about the other."""
    base, form = BASE[digits], "02x" if digits == "Hex" else "02"
    sticky = Sticky.model_validate({"header": {"name": "x-user-id", "digits": digits}})
    made = rules(segment(30, 20, digits), sticky, share)
    inside = values(segment(30, 20, digits))
    for pair in (inside[0], inside[len(inside) // 2], inside[-1]):
        sides = [revision(serve(made, **id_header(f"55{pair:{form}}{last:{form}}"))) for last in range(base**2)]
        assert share / 100 - 1 / base**2 < sides.count(CANDIDATE) / base**2 <= share / 100
    for pair in (inside[0] - 1, inside[-1] + 1):
        assert {revision(serve(made, **id_header(f"{pair:{form}}{last:{form}}"))) for last in range(0, base**2, 7)} == {
            LIVE
        }


def id_header(value: str) -> dict[str, str]:
    # A gateway compares names without regard to case; the reader of these tests does not.
    return {"X_User_Id": value, "x_user_id": value}


@pytest.mark.parametrize("sticky", [None, COOKIE, Sticky.model_validate({"header": {"name": "X-User-Id"}})])
def test_no_header_is_named_twice_and_pins_win(sticky: Sticky | None) -> None:
    inside, outside = "00001234", "00009934"
    pins = (
        Pin(CANDIDATE, (Match.model_validate({"headers": [{"name": "X-User-Id", "value": inside}]}),)),
        Pin(CANDIDATE, (Match.model_validate({"headers": [{"name": "X-User-Id", "value": outside}]}),)),
        Pin(LIVE, (Match.model_validate({"headers": [{"name": "X-Group", "value": "staff"}]}),)),
        Pin(LIVE, (Match.model_validate({"headers": [{"name": "X-User-Id"}, {"name": "X-Robot"}]}),)),
    )
    made = rules(segment(30, digits="Decimal"), sticky, 50, *pins)
    for rule in made:
        for match in rule["matches"]:
            names = [each["name"].lower() for each in match.get("headers", [])]
            assert len(names) == len(set(names))
    assert revision(serve(made, X_User_Id=inside)) == CANDIDATE
    assert revision(serve(made, X_User_Id=outside)) == CANDIDATE
    for last in range(100):
        assert revision(serve(made, X_User_Id=f"5512{last:02}", X_Group="staff")) == LIVE
        assert revision(serve(made, X_User_Id=f"5512{last:02}", X_Robot="1")) == LIVE


def test_without_sticky_users_the_segment_is_drawn_by_weight() -> None:
    made = rules(segment(30), None, 50)
    assert len(serve(made, X_User_Id="550000")["backendRefs"]) == 2
    assert revision(serve(made, X_User_Id="55ff00")) == LIVE
    assert revision(serve(made)) == LIVE


def test_what_no_gateway_can_do_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 100 together"):
        segment(30, 80)
    with pytest.raises(ValidationError, match="would take everybody"):
        Audience()
    with pytest.raises(ValidationError, match="cookies are matched by cookie"):
        Audience.model_validate({"hash": {"header": "Cookie", "percent": 5}})


ID = {"header": "X-User-Id", "percent": 5}


@pytest.mark.parametrize(
    ("users", "says"),
    [
        ({"hash": ID, "headers": [{"name": "Cookie", "value": "a=b"}]}, "in place of the header Cookie"),
        ({"hash": ID, "headers": [{"name": "X-A"}, {"name": "x-a"}]}, "each header only once"),
        ({"hash": ID, "headers": [{"name": "x-user-id"}]}, "the header of hash"),
    ],
)
def test_what_a_match_may_not_be_a_segment_may_not_be(users: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        Audience.model_validate(users)
    assert len(refused.value.errors()) == 1
