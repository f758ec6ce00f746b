"""Sticky users: who goes where, as a gateway would read the route."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.api.matching import Match
from serinus.api.steps import Step
from serinus.api.sticky import Sticky
from serinus.objects.context import Object
from serinus.objects.read import Children, observe
from serinus.objects.render import render
from serinus.release.observed import Pin
from serinus.release.sticky import ByCookie, ByHeader, split
from unit.objects.test_render import context, one, plan

LIVE, CANDIDATE = "bcdfghjklm", "nprstvwxz2"
STEPS = tuple(Step(weight=weight) for weight in (5, 25, 50))
COOKIE = Sticky.model_validate({"cookie": {"name": "serinus", "ttl": "2h"}})
WEIGHTS = st.sampled_from([5, 25, 50])


def rules(sticky: Sticky, weight: int, *pins: Pin) -> list[Object]:
    ctx = context()
    made = dataclasses.replace(
        plan(ctx),
        weights={LIVE: 100 - weight, CANDIDATE: weight},
        sticky=split(sticky, STEPS, weight, CANDIDATE, LIVE),
        pins=pins,
    )
    route = one(render(ctx, made, Children()), "HTTPRoute")
    read = observe(ctx.name, Children([route])).route.weights
    assert read == {name: share for name, share in made.weights.items() if share}
    found: list[Object] = route["spec"]["rules"]
    return found


def serve(rules: list[Object], **headers: str) -> Object:
    """The rule for a request to /, by the Gateway API's precedence: most headers, then the first."""
    fitting = []
    for place, rule in enumerate(rules):
        for match in rule["matches"]:
            wanted = match.get("headers", [])
            if match["path"]["value"] == "/" and all(fits(each, headers) for each in wanted):
                fitting.append((-len(wanted), place))
    return rules[min(fitting)[1]]


def fits(match: dict[str, Any], headers: dict[str, str]) -> bool:
    value = headers.get(match["name"].replace("-", "_"))
    if value is None:
        return False
    if match["type"] == "Exact":
        return bool(value == match["value"])
    return re.fullmatch(match["value"], value) is not None


def revision(rule: Object) -> str:
    (backend,) = rule["backendRefs"]
    name: str = backend["name"]
    return name.rpartition("-")[2]


def given_cookies(rules: list[Object]) -> dict[str, tuple[str, int]]:
    """Revision and weight by the cookie that a user without one is given."""
    found = {}
    for backend in serve(rules)["backendRefs"]:
        (header,) = backend["filters"][0]["responseHeaderModifier"]["add"]
        cookie, _, attributes = header["value"].partition("; ")
        assert header["name"] == "Set-Cookie"
        assert attributes == "Path=/; Max-Age=7200; HttpOnly; SameSite=Lax"
        found[cookie] = (backend["name"].rpartition("-")[2], backend["weight"])
    return found


@given(weight=WEIGHTS)
def test_a_user_comes_back_to_the_revision_that_was_drawn(weight: int) -> None:
    route = rules(COOKIE, weight)
    drawn = given_cookies(route)
    assert sum(share for _, share in drawn.values()) == 100
    assert sum(share for name, share in drawn.values() if name == CANDIDATE) == weight
    for cookie, (name, _) in drawn.items():
        assert revision(serve(route, Cookie=f"theme=dark; {cookie}; x=y")) == name


@given(before=WEIGHTS, after=WEIGHTS)
def test_a_step_moves_only_its_own_share_and_never_back(before: int, after: int) -> None:
    drawn, later = given_cookies(rules(COOKIE, before)), rules(COOKIE, after)
    moved = dict.fromkeys((LIVE, CANDIDATE), 0)
    for cookie, (name, share) in drawn.items():
        now = revision(serve(later, Cookie=cookie))
        moved[now] += share
        if after >= before and name == CANDIDATE:
            assert now == CANDIDATE, "a step up takes nobody from the candidate"
        if after <= before and name == LIVE:
            assert now == LIVE
    assert moved[CANDIDATE] == after, "the share of users who come back is the step's, not more and not less"


def test_cookies_of_another_release_or_of_another_list_of_steps_draw_again() -> None:
    route = rules(COOKIE, 25)
    for value in (f"{LIVE}.0-5", f"{CANDIDATE}.0-10", "x", ""):
        assert len(serve(route, Cookie=f"serinus={value}")["backendRefs"]) > 1


@pytest.mark.parametrize("weight", [0, 100])
def test_nothing_of_it_is_left_where_all_users_go_to_one_side(weight: int) -> None:
    assert split(COOKIE, STEPS, weight, CANDIDATE, LIVE) is None


def test_flags_come_before_sticky_users() -> None:
    match = Match.model_validate({"cookie": {"name": "group", "value": "beta"}})
    route = rules(COOKIE, 5, Pin(LIVE, (match,)))
    (chosen,) = [cookie for cookie, (name, _) in given_cookies(route).items() if name == CANDIDATE]
    assert revision(serve(route, Cookie=chosen)) == CANDIDATE
    assert revision(serve(route, Cookie=f"{chosen}; group=beta")) == LIVE


@given(weight=st.integers(1, 99), candidate=st.text("bcdfgh", min_size=10, max_size=10), hexadecimal=st.booleans())
def test_digits_of_a_header(weight: int, candidate: str, hexadecimal: bool) -> None:
    digits = "Hex" if hexadecimal else "Decimal"
    sticky = Sticky.model_validate({"header": {"name": "X-User-Id", "digits": digits}})
    found = split(sticky, STEPS, weight, candidate, LIVE)
    more = split(sticky, STEPS, min(99, weight + 10), candidate, LIVE)
    assert isinstance(found, ByHeader)
    assert isinstance(more, ByHeader)
    total = found.base**2
    assert found.chosen <= more.chosen, "more weight takes nobody away from the candidate"
    assert weight - 1 < 100 * len(found.chosen) / total <= weight


def test_rules_for_digits_of_a_header() -> None:
    sticky = Sticky.model_validate({"header": {"name": "X-User-Id", "digits": "Hex"}})
    found = split(sticky, STEPS, 25, CANDIDATE, LIVE)
    assert isinstance(found, ByHeader)
    route = rules(sticky, 25)
    for value in range(256):
        wanted = CANDIDATE if value in found.chosen else LIVE
        for text in (f"3f{value:02x}", f"3f{value:02X}"):
            assert revision(serve(route, X_User_Id=text)) == wanted
    assert len(serve(route, X_User_Id="bob?")["backendRefs"]) == 2, "not an id: drawn for each request"
    assert len(serve(route)["backendRefs"]) == 2


def test_a_route_has_room_for_all_of_it() -> None:
    match = Match.model_validate({"cookie": {"name": "group"}})
    pins = [Pin(LIVE, (match,))] * 4
    steps = tuple(Step(weight=weight) for weight in range(1, 13))
    found = split(COOKIE, steps, 12, CANDIDATE, LIVE)
    assert isinstance(found, ByCookie)
    assert len(found.groups) <= 16
    assert len(rules(COOKIE, 5, *pins)) <= 16


EXPERIMENT = Match.model_validate({"headers": [{"name": "X-Country", "value": "NZ"}]})


@pytest.mark.parametrize(
    "sticky",
    [None, COOKIE, Sticky.model_validate({"header": {"name": "X-User-Id"}})],
    ids=["drawn", "cookie", "header"],
)
def test_only_those_who_take_part_are_divided(sticky: Sticky | None) -> None:
    pins = (Pin(LIVE, (Match.model_validate({"headers": [{"name": "X-Group", "value": "staff"}]}),)),)
    ctx = context()
    found = split(sticky, STEPS, 50, CANDIDATE, LIVE) if sticky else None
    made = dataclasses.replace(
        plan(ctx), weights={LIVE: 50, CANDIDATE: 50}, stable=LIVE, users=EXPERIMENT, sticky=found, pins=pins
    )
    route = one(render(ctx, made, Children()), "HTTPRoute")
    assert observe(ctx.name, Children([route])).route.weights == {LIVE: 50, CANDIDATE: 50}
    rules: list[Object] = route["spec"]["rules"]
    assert revision(serve(rules)) == LIVE
    assert revision(serve(rules, X_Country="AU", X_User_Id="00")) == LIVE
    assert len(serve(rules, X_Country="NZ")["backendRefs"]) > 1
    if isinstance(found, ByHeader):
        sides = {revision(serve(rules, X_Country="NZ", X_User_Id=f"{value:02}")) for value in range(100)}
        assert sides == {LIVE, CANDIDATE}
    for value in range(100):
        user = serve(rules, X_Country="NZ", X_Group="staff", X_User_Id=f"{value:02}")
        assert revision(user) == LIVE, "a pin wins over an experiment"
    for rule in rules:
        for match in rule["matches"]:
            headers = [each["name"].lower() for each in match.get("headers", [])]
            assert len(headers) == len(set(headers)), "a route may name a header once only"


def test_pins_by_cookie_win_over_an_experiment_by_cookie() -> None:
    some = Match.model_validate({"cookie": {"name": "country", "value": "NZ"}})
    pin = Pin(LIVE, (Match.model_validate({"cookie": {"name": "group", "value": "staff"}}),))
    ctx = context()
    made = dataclasses.replace(
        plan(ctx),
        weights={LIVE: 50, CANDIDATE: 50},
        stable=LIVE,
        users=some,
        sticky=split(COOKIE, STEPS, 50, CANDIDATE, LIVE),
        pins=(pin,),
    )
    rules = one(render(ctx, made, Children()), "HTTPRoute")["spec"]["rules"]
    sign = f"serinus={CANDIDATE}.0-5"
    assert revision(serve(rules, Cookie=f"country=NZ; {sign}")) == CANDIDATE
    assert revision(serve(rules, Cookie=f"country=NZ; group=staff; {sign}")) == LIVE
    assert revision(serve(rules, Cookie=sign)) == LIVE, "not a part of it"
