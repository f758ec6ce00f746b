"""kopf wiring, nothing else: events become keys."""

from __future__ import annotations

from typing import Any

import kopf

from serinus.cluster.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, OPTIONAL, WATCHED, Kind
from serinus.cluster.store import Store
from serinus.objects.author import compact
from serinus.objects.names import DEPLOYMENT_LABEL
from serinus.workqueue import WorkQueue


def build(store: Store, queue: WorkQueue, optional: frozenset[str]) -> kopf.OperatorRegistry:
    """A registry whose handlers keep the store current and add the owner's key to the queue.

    Index handlers fill the store, because kopf runs them for all existing objects before any event handler: when the
    first key is worked on, the store is complete. Nothing is ever written from here, so no finalizer and no annotation
    appears on anything.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    kinds = [MODEL_DEPLOYMENT, *WATCHED, *(kind for kind in OPTIONAL if kind.kind in optional)]
    for kind in kinds:
        _watch(registry, kind, store, queue)
    return registry


def _watch(registry: kopf.OperatorRegistry, kind: Kind, store: Store, queue: WorkQueue) -> None:
    resource = (kind.group, kind.version, kind.plural)

    @kopf.index(*resource, registry=registry, id=f"store-{kind.plural}")
    async def keep(body: kopf.Body, **_: Any) -> None:
        store.put(_plain(kind, dict(body)))

    @kopf.on.event(*resource, registry=registry, id=f"enqueue-{kind.plural}")
    async def enqueue(event: kopf.RawEvent, **_: Any) -> None:
        obj = _plain(kind, dict(event["object"]))
        key = store.remove(obj) if event["type"] == "DELETED" else store.put(obj)
        if key is not None:
            queue.add(key)


def _plain(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """The object without what nobody here reads: of managedFields only a Deployment's matter, and who wrote a spec."""
    obj.setdefault("kind", kind.kind)
    if kind is not DEPLOYMENT:
        meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
        if kind is MODEL_DEPLOYMENT:
            meta["managedFields"] = compact(obj["metadata"].get("managedFields"))
        obj = {**obj, "metadata": meta}
    return obj


def settings(watch_namespaces: tuple[str, ...] = ()) -> kopf.OperatorSettings:
    """kopf's settings: watches that cannot hang, children filtered by the server, nothing posted from logs."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    # An operator of a few namespaces may not list namespaces or CRDs, and needs to know neither.
    chosen.scanning.disabled = bool(watch_namespaces)
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 310
    chosen.watching.connect_timeout = 30
    chosen.watching.inactivity_timeout = 70
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 30
    for kind in (*WATCHED, *OPTIONAL):
        name = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        chosen.watching.label_selectors[name] = DEPLOYMENT_LABEL
    return chosen
