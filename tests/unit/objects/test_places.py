"""No write of a route sends users to something that the gateway would have to make first, or takes it away from them.

As Envoy Gateway 1.9.1 does it (internal/gatewayapi/route.go, internal/xds/translator): the rule at place 2 becomes the
cluster `rule/2`, and one `rule/2/backend/N` for each of its backends once any of them has filters; a backend without
weight becomes nothing. Envoy learns of clusters and of rules apart from each other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.api.status import Outcome, Phase
from serinus.objects.context import Context, Object
from serinus.objects.places import formed, is_parked
from serinus.objects.read import Children, observe
from serinus.objects.traffic import http_route
from serinus.release.observed import Decision, Observed
from unit.release.world import NAME, START, World, settled, spec

LAG = timedelta(seconds=3)
"""What the gateway takes to confirm a route: more than a tick."""
STEPS = [
    {"weight": 5, "hold": "4s", "minRequests": 1},
    {"weight": 50, "hold": "4s", "minRequests": 1},
]
EXPERIMENT = {
    "experiment": {
        "users": {"headers": [{"name": "X-Country", "value": "NZ"}]},
        "metric": {"successes": "orders", "trials": "visitors", "interval": "2s"},
        "baseline": "10%",
        "minimumEffect": "2%",
        "maxDuration": "10s",
        "onSuccess": "Promote",
    }
}
FLAGS = [
    {"name": version, "match": [{"headers": [{"name": "X-Group", "value": version}]}], "version": version}
    for version in ("candidate", "previous", "live", "v1")
]
SIGNS = {"cookie": {"cookie": {"name": "serinus"}}, "header": {"header": {"name": "X-User-Id"}}}


def made(rules: list[Object], *, in_use: bool = False) -> set[str]:
    """Clusters that the gateway makes of these rules; or those of them that users are sent to."""
    found = set()
    for place, rule in enumerate(rules):
        if in_use and is_parked(rule):
            continue
        apart = any(backend.get("filters") for backend in rule["backendRefs"])
        weighted = [number for number, backend in enumerate(rule["backendRefs"]) if backend["weight"]]
        found |= {f"rule/{place}/backend/{number}" for number in weighted} if apart else {f"rule/{place}"}
    return found


@dataclass
class Routed(World):
    """A world whose plans become routes, which the gateway confirms a while later."""

    written: list[Object] = field(default_factory=list)
    """Rules of the stored route."""
    served: list[Object] = field(default_factory=list)
    """Rules that the gateway has confirmed."""
    confirmed_at: datetime = START
    shapes: set[tuple[str, ...]] = field(default_factory=set)

    def observed(self) -> Observed:
        found = super().observed()
        if self.now >= self.confirmed_at and not self.gateway_down:
            self.served = self.written
        accepted = found.route.accepted and self.served is self.written
        route = dataclasses.replace(found.route, accepted=accepted, formed=formed(self.spec, self.written))
        return dataclasses.replace(found, route=route)

    def obey(self, decision: Decision) -> None:
        super().obey(decision)
        if not decision.plan.weights:
            return
        route = http_route(Context("ns", NAME, "uid-1", self.spec), decision.plan)
        rules = route["spec"]["rules"]
        assert len(rules) <= 16
        read = observe(NAME, Children([route])).route.weights
        assert {name: share for name, share in read.items() if share} == {n: w for n, w in self.route.items() if w}
        assert formed(self.spec, rules), "a route that was just made lacks nothing"
        if rules == self.written:
            return
        if self.served:
            assert made(rules, in_use=True) <= made(self.served), "users meet a cluster that Envoy does not know yet"
            assert made(self.served, in_use=True) <= made(rules), "a cluster goes while Envoy still sends users to it"
            assert made(self.written, in_use=True) <= made(rules)
        self.written = rules
        self.confirmed_at = self.now + LAG


def full(version: str, sign: str | None, flags: bool, experiment: bool, path: str = "/") -> Any:
    release: dict[str, Any] = {"steps": [*STEPS, *([EXPERIMENT] if experiment else [])], "rollbackWindow": "20s"}
    if sign:
        release["sticky"] = SIGNS[sign]
    route = {"parentRefs": [{"name": "public"}], "path": path, "flags": FLAGS if flags else []}
    return spec(version, release=release, route=route)


FORMS = {
    "sign": st.sampled_from(["cookie", "header", None]),
    "flags": st.booleans(),
    "experiment": st.booleans(),
    "path": st.sampled_from(["/", "/fraud"]),
}
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "v3", "broken", "well", "abort", "rollback", "retry", "down", "up", "better"]),
        st.integers(1, 12),
    ),
    max_size=12,
)


@given(form=st.fixed_dictionaries(FORMS), events=EVENTS)
@settings(max_examples=30, deadline=None)
def test_users_never_meet_something_new(form: dict[str, Any], events: list[tuple[str, int]]) -> None:
    world = Routed(full("v1", None, False, False, form["path"]))
    world.run(settled)
    world.apply(full("v2", **form))
    for count, (event, ticks) in enumerate([("well", 8), *events]):
        names = {version: Routed(full(version, **form)).target().name for version in ("v1", "v2", "v3")}
        visitors = dict.fromkeys(names.values(), 1000.0 * (count + 1))
        orders = dict.fromkeys(names.values(), 100.0 * (count + 1))
        if event in names:
            world.apply(full(event, **form))
        elif event == "broken":
            world.error_rate[world.target().name] = 0.5
        elif event == "well":
            world.error_rate.clear()
        elif event in ("down", "up"):
            world.gateway_down = event == "down"
        elif event == "better":
            orders[world.target().name] *= 4
        else:
            world.asked[event] = str(count)
        world.own = {"visitors": visitors, "orders": orders}
        for _ in range(ticks):
            world.tick()


@pytest.mark.parametrize("experiment", [False, True])
@pytest.mark.parametrize("flags", [False, True])
@pytest.mark.parametrize("sign", ["cookie", "header", None])
@pytest.mark.parametrize("end", ["promoted", "rolled back"])
def test_a_whole_release(end: str, sign: str | None, flags: bool, experiment: bool) -> None:
    """The same, told through; and users do get where they are to be."""
    world = Routed(full("v1", None, False, False))
    world.run(settled)
    world.apply(full("v2", sign, flags, experiment))
    candidate = world.target().name
    world.run(lambda w: w.status.release and w.status.release.weight == 50)
    if end == "rolled back":
        world.error_rate[candidate] = 0.5
    visitors = 0.0
    for _ in range(60):
        visitors += 1000
        better = {name: visitors * (0.4 if name == candidate else 0.1) for name in world.ready}
        world.own = {"visitors": dict.fromkeys(world.ready, visitors), "orders": better}
        world.tick()
    record = world.status.last_release
    assert record is not None
    assert record.outcome is (Outcome.PROMOTED if end == "promoted" else Outcome.ROLLED_BACK)
    if flags:
        assert [each.name for each in world.status.flags if each.revision] == ["live", "v1"]


def test_the_first_weight_waits_for_the_rules_that_divide_the_users() -> None:
    world = Routed(full("v1", None, False, False))
    world.run(settled)
    world.gateway_down = True
    world.apply(full("v2", "cookie", False, False))
    for _ in range(20):
        world.tick()
    release = world.status.release
    assert release is not None
    assert (release.phase, release.weight, release.reason) == (Phase.CANARY, 0, "WaitingForGateway")
    assert "rules that divide the users" in (release.message or "")
    world.gateway_down = False
    world.run(lambda w: w.status.release.weight == 5, limit=6)


def test_a_new_flag_waits_for_its_rule() -> None:
    world = Routed(full("v1", None, False, False))
    world.run(settled)
    world.apply(full("v1", None, True, False))
    world.tick()
    flags = {flag.name: flag for flag in world.status.flags}
    assert (flags["live"].revision, flags["live"].reason) == (None, "WaitingForGateway")
    world.run(lambda w: w.status.flags[2].revision is not None, limit=4)
    world.gateway_down = True
    world.tick()
    assert world.status.flags[2].revision is not None, "who has a rule keeps it, whatever the gateway says"


def test_who_declares_neither_flags_nor_sticky_users_has_the_rules_of_old() -> None:
    world = Routed(full("v1", None, False, False))
    world.run(settled)
    assert world.plan.form is None
    http, grpc = world.written
    assert [len(http["matches"]), len(grpc["matches"]), len(http["backendRefs"])] == [1, 1, 1]
    assert not any("headers" in match for rule in world.written for match in rule["matches"])
