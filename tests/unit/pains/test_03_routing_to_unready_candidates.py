"""Elsewhere the route names a canary that is not ready, and users get its share as 503."""

from __future__ import annotations

from serinus.release.revisions import Revision
from unit.pains.scenes import objects, of_kind, under_way
from unit.release.world import NAME, spec, with_live


def test_no_weight_before_pods_are_ready_and_none_after_they_are_gone() -> None:
    world = with_live()
    world.apply(spec("v2"))
    candidate = world.target().name
    world.unready.add(candidate)
    for _ in range(30):
        world.tick()
        assert world.route.get(candidate, 0) == 0
    world.unready.clear()
    world.run(lambda w: w.route.get(candidate, 0) > 0)
    world.unready.add(candidate)
    world.tick()
    assert world.route.get(candidate, 0) == 0, "a candidate without pods kept its weight"


def test_a_candidate_that_is_not_ready_is_not_in_the_route_at_all() -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.unready.add(world.target().name)
    world.tick()
    (route,) = of_kind(objects(world.plan, world.spec), "HTTPRoute").values()
    names = {ref["name"] for ref in route["spec"]["rules"][0]["backendRefs"]}
    assert names == {f"{NAME}-{Revision.target(NAME, spec('v1')).name}"}


def test_more_weight_waits_for_more_pods() -> None:
    world = under_way(scaling={"min": 10})
    candidate = world.target().name
    world.run(lambda w: w.status.release is not None and w.status.release.step == 1)
    assert world.ready[candidate] >= 5, "half of the requests on fewer than half of the pods"
