"""Scenes that several pains share: a release under way, and the objects that a plan stands for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import Phase
from serinus.objects.context import Context
from serinus.objects.read import Children
from serinus.objects.render import Desired, render
from serinus.release.observed import Plan
from unit.release.world import NAME, World, settled, spec, with_live

Object = dict[str, Any]


def canary(world: World) -> bool:
    """Whether users meet the candidate."""
    return world.status.release is not None and world.status.release.phase is Phase.CANARY


def under_way(version: str = "v2", weight: int = 5, **changes: Any) -> World:
    """v1 is live, `version` has `weight` percent."""
    world = with_live(**changes)
    world.apply(spec(version, **changes))
    world.run(lambda w: canary(w) and w.status.release is not None and w.status.release.weight == weight)
    return world


def promoted(version: str = "v2", **changes: Any) -> World:
    """`version` has replaced v1, which is still warm."""
    world = under_way(version, **changes)
    world.run(settled)
    assert world.live() == version
    return world


def objects(plan: Plan, declared: ModelDeploymentSpec, existing: Iterable[Object] = ()) -> Desired:
    """What a plan asks for in the cluster."""
    return render(Context("ns", NAME, "uid-1", declared), plan, Children(list(existing)))


def of_kind(desired: Desired, kind: str) -> dict[str, Object]:
    """Objects of one kind by name."""
    return {obj["metadata"]["name"]: obj for obj in desired.apply if obj["kind"] == kind}


def child(revision: str) -> str:
    """Name of a revision's objects."""
    return f"{NAME}-{revision}"
