"""Gather -> decide -> render -> apply, for one ModelDeployment."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import ValidationError

from serinus import telemetry
from serinus.api import API_VERSION, KIND
from serinus.api.notifications import Notification
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus, Phase, Watch
from serinus.cluster.applier import Applier
from serinus.cluster.client import Api, ApiError
from serinus.cluster.events import Events
from serinus.cluster.kinds import MODEL_DEPLOYMENT
from serinus.cluster.store import Key, Store
from serinus.errands import Errands
from serinus.evidence.book import Book
from serinus.objects.author import author
from serinus.objects.conflicts import Routes
from serinus.objects.context import Context, Object, Settings
from serinus.objects.names import asked
from serinus.objects.read import Children, observe, revision_number
from serinus.objects.render import render
from serinus.release.conditions import Wanted, merge
from serinus.release.machine import decide
from serinus.release.observed import Decision, Input, Note
from serinus.release.quiet import resumed, worth_storing

log = logging.getLogger(__name__)
RESYNC = 600.0
"""Seconds after which a settled ModelDeployment is looked at again, lest a watch lost something."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Brings one ModelDeployment at a time to what its spec asks for."""

    def __init__(
        self,
        api: Api,
        store: Store,
        book: Book,
        events: Events,
        settings: Settings,
        clock: Callable[[], datetime] = utc_now,
        errands: Errands | None = None,
        notifications: tuple[Notification, ...] = (),
        frozen: Callable[[str], str | None] = lambda namespace: None,
    ) -> None:
        self._api = api
        self._store = store
        self._book = book
        self._events = events
        self._settings = settings
        self._clock = clock
        self._errands = errands
        self._notifications = notifications
        self._frozen = frozen
        self._applier = Applier(api, store)
        self._told: dict[Key, str] = {}
        self._watches: dict[Key, Watch] = {}
        """What was counted after a promotion, beyond what is stored."""
        self._conditions = telemetry.Conditions()
        self._routes = Routes()

    async def reconcile(self, key: Key) -> float | None:
        """One pass. The status is stored before anything is applied, so that it is the record to resume from.

        Returns:
            Seconds until time alone may change something.

        Raises:
            ApiError: the API server refused; the caller tries again later.
        """
        with telemetry.RECONCILE_SECONDS.time(), telemetry.RECONCILE_ERRORS.count_exceptions():
            owner = self._store.owner(key)
            if owner is None or owner["metadata"].get("deletionTimestamp"):
                self._forget(key)
                return None
            try:
                spec = ModelDeploymentSpec.model_validate(owner["spec"])
                status = ModelDeploymentStatus.model_validate(owner.get("status") or {})
            except ValidationError as error:
                await self._invalid(owner, error)
                return None
            return await self._bring(key, owner, spec, status)

    async def _bring(
        self, key: Key, owner: Object, spec: ModelDeploymentSpec, status: ModelDeploymentStatus
    ) -> float | None:
        meta = owner["metadata"]
        self._routes.put(key, meta, spec.route)
        children = Children(self._store.children(key))
        evidence, mark = self._book.read(key)
        decision = decide(
            Input(
                name=meta["name"],
                generation=meta["generation"],
                spec=spec,
                status=resumed(status, self._watches.get(key)),
                observed=observe(meta["name"], children, spec),
                evidence=evidence,
                now=self._clock(),
                asked=asked(meta.get("annotations")),
                frozen=self._frozen(meta["namespace"]),
                results=self._errands.results(key) if self._errands is not None else {},
                notifications=self._notifications,
                author=author(meta),
                conflict=self._routes.conflict(key),
            )
        )
        try:
            owner = await self._store_status(owner, status, decision.status)
        except ApiError as error:
            if error.status != 409:
                raise
            # Somebody wrote in between, most often the user: what was decided is decided again on the newer object.
            return await self._refresh(key, owner)
        self._remember(key, decision.status.watch)
        self._book.settle(key, mark)
        if self._errands is not None:
            self._errands.ask(key, decision.errands)
        for note in decision.notes:
            telemetry.EVENTS.labels(note.reason).inc()
            await self._events.tell(owner, note)
        await self._apply(key, owner, spec, decision, children)
        self._measure(key, decision.status)
        return min(decision.requeue_after or RESYNC, RESYNC)

    async def _apply(
        self, key: Key, owner: Object, spec: ModelDeploymentSpec, decision: Decision, children: Children
    ) -> None:
        meta = owner["metadata"]
        context = Context(meta["namespace"], meta["name"], meta["uid"], spec, self._settings)
        desired = render(context, decision.plan, children, _history(children, spec.release.history_limit))
        try:
            telemetry.API_WRITES.inc(await self._applier.bring(key, desired))
            self._told.pop(key, None)
        except ApiError as error:
            text = _advice(error)
            if self._told.get(key) != text:
                self._told[key] = text
                await self._events.tell(owner, Note("Warning", "ApplyFailed", text))
            raise

    async def _store_status(self, owner: Object, old: ModelDeploymentStatus, new: ModelDeploymentStatus) -> Object:
        if owner.get("status") and not worth_storing(old, new):
            return owner
        meta = owner["metadata"]
        stored = await self._api.apply(
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                # The version makes a leader that was frozen and woke up fail here instead of writing old news.
                "metadata": {
                    "name": meta["name"],
                    "namespace": meta["namespace"],
                    "resourceVersion": meta["resourceVersion"],
                },
                "status": new.model_dump(mode="json", by_alias=True, exclude_none=True),
            },
            subresource="status",
        )
        telemetry.STATUS_WRITES.inc()
        self._store.put(stored)
        return stored

    async def _invalid(self, owner: Object, error: ValidationError) -> None:
        """A stored object that the models refuse, for example one from before a rule existed: say so, touch nothing."""
        text = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        meta = owner["metadata"]
        try:
            status = ModelDeploymentStatus.model_validate(owner.get("status") or {})
        except ValidationError:
            log.exception("the stored status cannot be read", extra={"object": f"{meta['namespace']}/{meta['name']}"})
            return
        wanted = [
            *(Wanted(c.type, c.status == "True", c.reason, c.message) for c in status.conditions if c.type == "Ready"),
            Wanted("Stalled", True, "InvalidSpec", text),
        ]
        conditions = merge(status.conditions, wanted, meta["generation"], self._clock())
        update = {"conditions": conditions, "observed_generation": meta["generation"], "phase": Phase.INVALID}
        fresh = status.model_copy(update=update)
        if fresh != status:
            stored = await self._store_status(owner, status, fresh)
            await self._events.tell(stored, Note("Warning", "InvalidSpec", text))

    async def _refresh(self, key: Key, owner: Object) -> float:
        meta = owner["metadata"]
        fresh = await self._api.get(MODEL_DEPLOYMENT, meta["namespace"], meta["name"])
        if fresh is not None:
            self._store.put(fresh)
        return 0.05

    def _measure(self, key: Key, status: ModelDeploymentStatus) -> None:
        weight = status.release.weight if status.release else 0
        telemetry.CANDIDATE_WEIGHT.labels(*key).set(weight)
        self._conditions.show(key, status.conditions)

    def _remember(self, key: Key, watch: Watch | None) -> None:
        if watch is None:
            self._watches.pop(key, None)
        else:
            self._watches[key] = watch

    def _forget(self, key: Key) -> None:
        self._remember(key, None)
        self._book.forget(key)
        self._routes.forget(key)
        if self._errands is not None:
            self._errands.forget(key)
        self._applier.forget(key)
        self._told.pop(key, None)
        self._conditions.forget(key)
        with contextlib.suppress(KeyError):
            telemetry.CANDIDATE_WEIGHT.remove(*key)


def _history(children: Children, limit: int) -> list[str]:
    """Revisions whose snapshots stay: the latest `limit`."""
    found = sorted(children.of("ControllerRevision").values(), key=revision_number, reverse=True)
    return [obj["metadata"]["name"].rpartition("-")[2] for obj in found[:limit]]


def _advice(error: ApiError) -> str:
    text = str(error)
    if error.status == 404 and "httproutes" in text:
        return (
            "this cluster has no HTTPRoute (gateway.networking.k8s.io/v1): install the Gateway API and a gateway, "
            "or remove spec.route"
        )
    if error.status == 403:
        return f"the operator may not do this: {text}; compare its ClusterRole with the chart's"
    return text
