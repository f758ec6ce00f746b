"""Elsewhere switching the kind of autoscaler deadlocks: the old one must go before what it scales changes hands."""

from __future__ import annotations

from typing import Any

from unit.pains.scenes import child, objects, of_kind
from unit.release.world import spec, with_live


def existing(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "uid": f"{kind}/{name}"}, "spec": {}, **more}


def test_to_a_fixed_number_deletes_the_autoscaler_and_owns_replicas_again() -> None:
    world = with_live(scaling={"min": 2, "max": 9})
    live = world.status.live
    assert live is not None
    name = child(live.revision)
    world.apply(spec("v1", scaling={"min": 5}))
    world.tick()
    there = [existing("HorizontalPodAutoscaler", name), existing("Deployment", name, spec={"replicas": 7})]
    desired = objects(world.plan, world.spec, there)
    assert [(obj["kind"], obj["metadata"]["name"]) for obj in desired.delete] == [("HorizontalPodAutoscaler", name)]
    assert of_kind(desired, "Deployment")[name]["spec"]["replicas"] == 5
    assert world.status.release is None


def test_back_to_an_autoscaler_never_scales_down_on_the_way() -> None:
    world = with_live(scaling={"min": 2})
    live = world.status.live
    assert live is not None
    name = child(live.revision)
    world.apply(spec("v1", scaling={"min": 2, "max": 9}))
    world.tick()
    fields = {"manager": "serinus", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    held = existing("Deployment", name, spec={"replicas": 7})
    held["metadata"]["managedFields"] = [fields]
    desired = objects(world.plan, world.spec, [held])
    assert of_kind(desired, "Deployment")[name]["spec"]["replicas"] == 7
    assert name not in desired.scale
    assert name in of_kind(desired, "HorizontalPodAutoscaler")
