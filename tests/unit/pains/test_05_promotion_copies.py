"""Elsewhere a promotion copies the new version to a "primary", which then fails after the analysis had passed."""

from __future__ import annotations

from unit.pains.scenes import child, objects, of_kind, under_way
from unit.release.world import settled


def test_the_pods_that_were_judged_are_the_pods_that_serve() -> None:
    world = under_way()
    candidate = world.target().name
    before = of_kind(objects(world.plan, world.spec), "Deployment")[child(candidate)]
    service = of_kind(objects(world.plan, world.spec), "Service")[child(candidate)]
    world.run(settled)
    world.tick()
    after = of_kind(objects(world.plan, world.spec), "Deployment")[child(candidate)]
    assert after["spec"]["template"] == before["spec"]["template"], "the promotion would restart the pods"
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert of_kind(objects(world.plan, world.spec), "Service")[child(candidate)] == service


def test_a_pod_template_does_not_know_its_role() -> None:
    world = under_way()
    live = world.status.live
    assert live is not None
    during = of_kind(objects(world.plan, world.spec), "Deployment")[child(live.revision)]
    world.run(settled)
    world.tick()
    as_previous = of_kind(objects(world.plan, world.spec), "Deployment")[child(live.revision)]
    assert as_previous["spec"]["template"] == during["spec"]["template"]
