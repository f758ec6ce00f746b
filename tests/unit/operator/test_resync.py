"""What a watch lost is found; what it kept too long is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

from serinus.cluster.kinds import OWNED, Kind
from serinus.cluster.resync import resync
from serinus.cluster.store import Key, Store

SERVICES = next(kind for kind in OWNED if kind.kind == "Service")


def service(name: str, uid: str, version: int) -> dict[str, Any]:
    labels = {"serving.serinus.dev/deployment": "fraud"}
    meta = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": "Service", "apiVersion": "v1", "metadata": meta, "spec": {}}


class Listing:
    """An API server that only lists."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = objects

    async def list(self, kind: Kind, namespace: str | None, selector: str | None = None) -> list[dict[str, Any]]:
        assert selector == "serving.serinus.dev/deployment"
        return list(self.objects)


def test_lost_changed_and_left_over() -> None:
    store = Store()
    store.put(service("same", "u1", 5))
    store.put(service("changed", "u2", 5))
    store.put(service("gone", "u3", 5))
    api = Listing(service("same", "u1", 5), service("changed", "u2", 8), service("lost", "u4", 9))
    due: list[Key] = []
    found = asyncio.run(resync(api, store, [SERVICES], (), due.append))  # type: ignore[arg-type]
    assert found == 3
    assert set(due) == {("ns", "fraud")}
    names = {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in store.children(("ns", "fraud"))}
    assert names == {"same": "5", "changed": "8", "lost": "9"}


def test_nothing_to_say_when_nothing_differs() -> None:
    store = Store()
    store.put(service("same", "u1", 5))
    due: list[Key] = []
    api = Listing(service("same", "u1", 5))
    assert asyncio.run(resync(api, store, [SERVICES], (), due.append)) == 0  # type: ignore[arg-type]
    assert due == []
