"""Objects as last seen, from watches and from the answers to our own writes; whichever is newer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serinus.api import KIND
from serinus.objects.context import Object
from serinus.objects.names import DEPLOYMENT_LABEL

Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""


class Store:
    """ModelDeployments and their children by owner.

    An answer to a write reaches the store before the watch does, so that the next reconcile sees it. Resource versions
    order objects (KEP-5504 makes that official from Kubernetes 1.35).
    """

    def __init__(self) -> None:
        self._owners: dict[Key, Object] = {}
        self._children: dict[Key, dict[tuple[str, str], Object]] = {}
        self._gone: dict[str, None] = {}

    def put(self, obj: Object) -> Key | None:
        """Keeps `obj` unless a newer one is known or it was deleted. Returns its owner's key."""
        key = owner_of(obj)
        uid = obj["metadata"]["uid"]
        if key is None or uid in self._gone:
            return key
        if obj["kind"] == KIND:
            self._owners[key] = _newer(self._owners.get(key), obj)
        else:
            shelf = self._children.setdefault(key, {})
            place = (obj["kind"], obj["metadata"]["name"])
            shelf[place] = _newer(shelf.get(place), obj)
        return key

    def remove(self, obj: Object) -> Key | None:
        """Forgets a deleted object, unless another of the same name has taken its place."""
        key = owner_of(obj)
        if key is None:
            return None
        uid = obj["metadata"]["uid"]
        self._gone[uid] = None
        while len(self._gone) > 10_000:
            self._gone.pop(next(iter(self._gone)))
        if obj["kind"] == KIND:
            if self._owners.get(key, {}).get("metadata", {}).get("uid") == uid:
                del self._owners[key]
        else:
            shelf = self._children.get(key, {})
            place = (obj["kind"], obj["metadata"]["name"])
            if shelf.get(place, {}).get("metadata", {}).get("uid") == uid:
                del shelf[place]
                if not shelf:
                    del self._children[key]
        return key

    def owner(self, key: Key) -> Object | None:
        return self._owners.get(key)

    def children(self, key: Key) -> list[Object]:
        return list(self._children.get(key, {}).values())

    def owners(self) -> list[Key]:
        """Keys of all ModelDeployments."""
        return list(self._owners)

    def everything(self) -> Iterator[Object]:
        """All objects, owners first."""
        yield from self._owners.values()
        for shelf in self._children.values():
            yield from shelf.values()


def owner_of(obj: Mapping[str, Any]) -> Key | None:
    """The ModelDeployment that an object belongs to, by its label; itself for a ModelDeployment."""
    meta = obj["metadata"]
    if obj["kind"] == KIND:
        return meta["namespace"], meta["name"]
    name = (meta.get("labels") or {}).get(DEPLOYMENT_LABEL)
    return (meta["namespace"], name) if name else None


def _newer(known: Object | None, fresh: Object) -> Object:
    if known is None or known["metadata"]["uid"] != fresh["metadata"]["uid"]:
        return fresh
    return fresh if _version(fresh) >= _version(known) else known


def _version(obj: Object) -> int:
    try:
        return int(obj["metadata"]["resourceVersion"])
    except (KeyError, ValueError):
        return 0
