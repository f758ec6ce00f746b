"""Compares the store with the API server now and then: what a broken watch lost is found, what it kept is dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import Kind
from serinus.cluster.store import Key, Store
from serinus.objects.names import DEPLOYMENT_LABEL

log = logging.getLogger(__name__)


async def resync(
    api: Api, store: Store, kinds: Iterable[Kind], namespaces: Sequence[str], due: Callable[[Key], None]
) -> int:
    """One comparison; calls `due` for each owner whose objects were not as the store had them.

    Args:
        namespaces: empty for all.
        due: makes a key due for a reconcile.

    Returns:
        How many objects differed.
    """
    found = 0
    for kind in kinds:
        known = {obj["metadata"]["uid"]: obj for obj in store.everything() if obj["kind"] == kind.kind}
        listed = set()
        selector = None if kind.group == "serving.serinus.dev" else DEPLOYMENT_LABEL
        for namespace in namespaces or (None,):
            for obj in await api.list(kind, namespace, selector):
                meta = obj["metadata"]
                listed.add(meta["uid"])
                before = known.get(meta["uid"])
                key = store.put(obj)
                if key and (before is None or before["metadata"]["resourceVersion"] != meta["resourceVersion"]):
                    found += 1
                    due(key)
        for uid, obj in known.items():
            if uid not in listed and (key := store.remove(obj)):
                found += 1
                due(key)
    return found


async def keep_resyncing(
    api: Api,
    store: Store,
    kinds: Sequence[Kind],
    namespaces: Sequence[str],
    due: Callable[[Key], None],
    period: float = 600.0,
) -> None:
    """Compares every `period` seconds until cancelled."""
    while True:
        await asyncio.sleep(period)
        try:
            if found := await resync(api, store, kinds, namespaces, due):
                log.info("%d objects were not as the watches had told", found)
        except ApiError as error:
            log.warning("resync: %s", error)
