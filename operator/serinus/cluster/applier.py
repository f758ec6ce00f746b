"""Applies desired objects and writes nothing where nothing differs."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import DEPLOYMENT
from serinus.cluster.store import Key, Store
from serinus.objects.context import Object
from serinus.objects.render import Desired

log = logging.getLogger(__name__)


class Applier:
    """Brings the cluster to a desired state.

    Whether an object needs an apply is told by two fingerprints: of what we want, and of what the API server stored
    when we last applied it. If either differs - the desire changed, or somebody edited the object - it is applied
    again. So server-side defaulting and normalisation need no modelling, and a settled object is never written.
    """

    def __init__(self, api: Api, store: Store) -> None:
        self._api = api
        self._store = store
        self._applied: dict[Key, dict[str, tuple[str, str]]] = {}
        """Fingerprints by owner and uid."""

    async def bring(self, key: Key, desired: Desired) -> int:
        """Applies, scales and deletes; returns how many writes that took.

        Raises:
            ApiError: the API server refused; what came before it is applied.
        """
        current = {(obj["kind"], obj["metadata"]["name"]): obj for obj in self._store.children(key)}
        writes = 0
        for obj in desired.apply:
            known = current.get((obj["kind"], obj["metadata"]["name"]))
            if await self._apply(key, obj, known):
                writes += 1
        for name, replicas in desired.scale.items():
            try:
                await self._api.scale(DEPLOYMENT, key[0], name, replicas)
                writes += 1
            except ApiError as error:
                if error.status != 404:
                    raise
        for obj in desired.delete:
            log.info("deleting %s %s", obj["kind"], obj["metadata"]["name"], extra={"object": "/".join(key)})
            await self._api.delete(obj)
            self._store.remove(obj)
            writes += 1
        self._prune(key)
        return writes

    @property
    def remembered(self) -> int:
        """Objects whose fingerprints are kept."""
        return sum(map(len, self._applied.values()))

    def forget(self, key: Key) -> None:
        """Drops a deleted ModelDeployment: the garbage collector removes its objects, and no `bring` comes again."""
        self._applied.pop(key, None)

    def _prune(self, key: Key) -> None:
        """Keeps only fingerprints of objects that exist, whoever deleted the others."""
        alive = {obj["metadata"]["uid"] for obj in self._store.children(key)}
        kept = {uid: prints for uid, prints in self._applied.pop(key, {}).items() if uid in alive}
        if kept:
            self._applied[key] = kept

    async def _apply(self, key: Key, obj: Object, known: Object | None) -> bool:
        wanted = _digest(obj)
        before: tuple[str, str] | None = None
        if known is not None:
            before = self._applied.get(key, {}).get(known["metadata"]["uid"])
            if before == (wanted, fingerprint(known)):
                return False
        stored = await self._api.apply(obj)
        stored.setdefault("kind", obj["kind"])
        self._applied.setdefault(key, {})[stored["metadata"]["uid"]] = (wanted, fingerprint(stored))
        self._store.put(stored)
        if known is not None and before is not None and before[0] == wanted and _changed(known, stored):
            log.info("repaired %s %s, which somebody had changed", obj["kind"], stored["metadata"]["name"])
        return True


def _changed(known: Object, stored: Object) -> bool:
    """Whether the apply undid an edit: replicas belong to the autoscaler, and annotations to others."""

    def ours(obj: Object) -> str:
        spec = obj.get("spec") or {}
        kept = {name: value for name, value in spec.items() if name != "replicas"}
        return _digest([kept, obj["metadata"].get("labels")])

    return ours(known) != ours(stored)


def fingerprint(obj: Object) -> str:
    """Hash of everything but status and bookkeeping: it changes when somebody changes what the object asks for."""
    meta = obj["metadata"]
    kept = {name: value for name, value in obj.items() if name not in ("status", "metadata", "apiVersion", "kind")}
    kept["metadata"] = {
        name: meta[name] for name in ("labels", "annotations", "ownerReferences", "finalizers") if meta.get(name)
    }
    return _digest(kept)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
