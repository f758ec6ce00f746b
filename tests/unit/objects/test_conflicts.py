"""Two ModelDeployments with one address: the younger one is told, whoever is seen first."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.spec import Route
from serinus.objects.conflicts import Key, Routes
from unit.release.world import settled, with_live

OLD, YOUNG = ("a", "old"), ("b", "young")
BORN = {OLD: "2026-11-01T00:00:00Z", YOUNG: "2026-11-02T00:00:00Z"}


def route(*hosts: str, path: str = "/", gateway: str = "public", section: str | None = None) -> Route:
    parent: dict[str, Any] = {"name": gateway, "namespace": "gateways"}
    if section:
        parent["sectionName"] = section
    return Route.model_validate({"parentRefs": [parent], "hostnames": list(hosts), "path": path})


def put(routes: Routes, key: Key, wanted: Route | None) -> None:
    routes.put(key, {"creationTimestamp": BORN.get(key, "2026-11-03T00:00:00Z")}, wanted)


@pytest.mark.parametrize("order", list(itertools.permutations((OLD, YOUNG))))
def test_the_younger_one_is_told_whatever_the_order(order: tuple[Key, ...]) -> None:
    routes = Routes()
    for key in order:
        put(routes, key, route("m.example.com", path="/fraud"))
    assert routes.conflict(OLD) is None
    assert routes.conflict(YOUNG) == (
        "ModelDeployment a/old is older and has m.example.com with path /fraud at Gateway gateways/public too: "
        "requests go there"
    )


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (route(), route(), True),
        (route("a.x", "b.x"), route("b.x", "c.x"), True),
        (route("a.x"), route("b.x"), False),
        (route("a.x"), route(), False),
        (route("a.x"), route("a.x", path="/m"), False),
        (route("a.x"), route("a.x", gateway="private"), False),
        (route("a.x", section="https"), route("a.x", section="http"), False),
        (route("a.x", section="https"), route("a.x", section="https"), True),
        (route("a.x"), route("a.x", section="https"), True),
    ],
)
def test_what_is_the_same_address(one: Route, other: Route, clash: bool) -> None:
    routes = Routes()
    put(routes, OLD, one)
    put(routes, YOUNG, other)
    assert (routes.conflict(YOUNG) is not None) is clash
    assert routes.conflict(OLD) is None


def test_a_gateway_of_the_own_namespace_is_another_one() -> None:
    routes = Routes()
    here = Route.model_validate({"parentRefs": [{"name": "public"}]})
    put(routes, OLD, here)
    put(routes, YOUNG, here)
    assert routes.conflict(YOUNG) is None


def test_it_ends_when_the_other_moves_or_goes() -> None:
    for end in (lambda r: r.forget(OLD), lambda r: put(r, OLD, route("c.x")), lambda r: put(r, OLD, None)):
        routes = Routes()
        put(routes, OLD, route("a.x"))
        put(routes, YOUNG, route("a.x"))
        assert routes.conflict(YOUNG)
        end(routes)
        assert routes.conflict(YOUNG) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, "a.x", "b.x"])), max_size=30))
@settings(deadline=None)
def test_exactly_the_oldest_of_an_address_is_left_alone(moves: list[tuple[int, str | None]]) -> None:
    routes, now = Routes(), dict[int, str | None]()
    for who, host in moves:
        now[who] = host
        meta = {"creationTimestamp": f"2026-11-0{who + 1}T00:00:00Z"}
        routes.put(("n", str(who)), meta, route(host) if host else None)
        for one, mine in now.items():
            older = [other for other, theirs in now.items() if theirs == mine and other < one]
            assert (routes.conflict(("n", str(one))) is not None) is (mine is not None and bool(older))


def test_condition_and_one_event() -> None:
    world = with_live()
    base = world.given
    told = {"conflict": None}

    def given_() -> Any:
        from dataclasses import replace

        return replace(base(), conflict=told["conflict"])

    world.given = given_  # type: ignore[method-assign]
    told["conflict"] = "ModelDeployment a/old is older"  # type: ignore[assignment]
    for _ in range(3):
        world.tick()
    assert settled(world)
    (condition,) = [each for each in world.status.conditions if each.type == "RouteConflict"]
    assert (condition.status, condition.message) == ("True", "ModelDeployment a/old is older")
    assert [note.reason for note in world.notes] == ["RouteConflict"]
    told["conflict"] = None
    world.tick()
    assert not [each for each in world.status.conditions if each.type == "RouteConflict"]
