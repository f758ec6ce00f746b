"""What the applier remembers, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

from serinus.cluster.applier import Applier
from serinus.cluster.client import Api
from serinus.cluster.store import Key, Store
from serinus.objects.render import Desired

KEY: Key = ("ns", "fraud")


class Storing(Api):
    """An API server that stores whatever it is given."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    async def apply(self, obj: dict[str, Any], subresource: str | None = None) -> dict[str, Any]:
        self.applied.append(obj["metadata"]["name"])
        return {**obj, "metadata": {**obj["metadata"], "uid": f"u{len(self.applied)}", "resourceVersion": "1"}}


def service(name: str) -> dict[str, Any]:
    labels = {"serving.serinus.dev/deployment": KEY[1]}
    return {"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": KEY[0], "name": name, "labels": labels}}


def test_what_is_applied_is_not_applied_again() -> None:
    api, store = Storing(), Store()
    applier = Applier(api, store)
    for _ in range(3):
        asyncio.run(applier.bring(KEY, Desired(apply=[service("a")])))
    assert api.applied == ["a"]


def test_objects_that_others_deleted_are_forgotten() -> None:
    api, store = Storing(), Store()
    applier = Applier(api, store)
    asyncio.run(applier.bring(KEY, Desired(apply=[service("a"), service("b")])))
    gone = next(obj for obj in store.children(KEY) if obj["metadata"]["name"] == "b")
    store.remove(gone)
    asyncio.run(applier.bring(KEY, Desired(apply=[service("a")])))
    assert applier.remembered == 1


def test_a_deleted_owner_leaves_nothing_behind() -> None:
    api, store = Storing(), Store()
    applier = Applier(api, store)
    asyncio.run(applier.bring(KEY, Desired(apply=[service("a"), service("b")])))
    for obj in store.children(KEY):
        store.remove(obj)
    applier.forget(KEY)
    assert applier.remembered == 0
