"""`serinus-operator`: waits for leadership, then works until told to stop or until leadership is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine

import kopf
import uvloop

from serinus import handlers, telemetry, web
from serinus.cluster.client import Api
from serinus.cluster.events import Events
from serinus.cluster.freeze import FreezeSwitch
from serinus.cluster.kinds import MODEL_DEPLOYMENT, OPTIONAL, WATCHED
from serinus.cluster.lease import Lease, LeaseLost
from serinus.cluster.resync import keep_resyncing
from serinus.cluster.store import Store
from serinus.collector import Collector
from serinus.errands import Errands, Runner
from serinus.errands.runners import runners
from serinus.evidence.book import Book
from serinus.evidence.client import Prometheus
from serinus.notify import configured
from serinus.notify.send import Sender
from serinus.objects.context import Settings
from serinus.reconcile import Reconciler
from serinus.release.outbox import Delivery
from serinus.settings import OperatorSettings, SettingsError
from serinus.workqueue import WorkQueue

log = logging.getLogger("serinus")
STUCK = 60.0
"""Seconds after which a loop that has not come round is stuck."""


async def run(settings: OperatorSettings) -> None:
    """The whole operator, until SIGTERM or SIGINT.

    Raises:
        LeaseLost: another replica may be leading; the process must end at once.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    api = await Api.connect()
    operator: _Working | None = None

    def problem() -> str | None:
        return operator.problem() if operator else None

    runner = await web.serve(settings.http_port, problem)
    lease = Lease(api, settings.lease_namespace, settings.lease_name, settings.identity, settings.lease_duration)
    try:
        if not await _first(stop, lease.acquire()):
            return
        telemetry.LEADER.set(1)
        operator = _Working(settings, api)
        await operator.run(stop, lease)
        await lease.release()
    finally:
        telemetry.LEADER.set(0)
        await runner.cleanup()
        await api.close()
    log.info("stopped")


class _Working:
    """The parts of a leading replica."""

    def __init__(self, settings: OperatorSettings, api: Api) -> None:
        self._settings = settings
        self._api = api
        self._store = Store()
        self._book = Book()
        self._prometheus = Prometheus(settings.prometheus_url)
        self._queue: WorkQueue | None = None
        self._collector: Collector | None = None

    async def run(self, stop: asyncio.Event, lease: Lease) -> None:
        settings = self._settings
        optional = frozenset([kind.kind for kind in OPTIONAL if await self._api.serves(kind)])
        told = configured.read(settings.notifications)
        objects = Settings(runtime_image=settings.runtime_image, pod_monitors="PodMonitor" in optional)
        events = Events(self._api, settings.identity)
        does: dict[type, Runner] = {
            **runners(self._api, self._store, settings.smoke_key_file, settings.webhook_hosts),
            Delivery: Sender(settings.receivers, settings.webhook_hosts),
        }
        errands = Errands(does, lambda key: queue.add(key))
        freeze = FreezeSwitch(self._api, settings.lease_namespace, self._everyone)
        reconciler = Reconciler(
            self._api,
            self._store,
            self._book,
            events,
            objects,
            errands=errands,
            notifications=told,
            frozen=freeze.frozen,
        )
        queue = self._queue = WorkQueue(reconciler.reconcile)
        collector = self._collector = Collector(self._prometheus, self._book, self._store, queue, settings.tick)
        watching = kopf.operator(
            registry=handlers.build(self._store, queue, optional),
            settings=handlers.settings(settings.watch_namespaces),
            # kopf's own guess asks for the user's name, which a container's uid need not have.
            identity=settings.identity,  # type: ignore[arg-type]
            standalone=True,
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            stop_flag=stop,
        )
        kinds = [MODEL_DEPLOYMENT, *WATCHED]
        resyncing = keep_resyncing(self._api, self._store, kinds, settings.watch_namespaces, queue.add)
        works = (lease.keep(), queue.run(), collector.run(), freeze.run(), resyncing, watching)
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await errands.close()
            self._prometheus.close()

    def _everyone(self) -> None:
        """Makes every ModelDeployment due."""
        for key in self._store.owners():
            if self._queue is not None:
                self._queue.add(key)

    def problem(self) -> str | None:
        """Why `/healthz` is not ok."""
        if self._queue and self._queue.longest_run > STUCK:
            return f"a reconcile has taken {self._queue.longest_run:.0f} s"
        if self._collector and (silent := time.monotonic() - self._collector.beat) > STUCK:
            return f"the evidence loop has not come round for {silent:.0f} s"
        return None


async def _first(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Runs `work` unless `stop` is set first; says whether it finished."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    return False


def main() -> None:
    """Entry point of the operator's container."""
    try:
        settings = OperatorSettings.from_env()
    except SettingsError as error:
        sys.exit(f"serinus-operator: {error}")
    telemetry.setup_logging(settings.log_format)
    try:
        uvloop.run(run(settings))
    except configured.NotificationsError as error:
        sys.exit(f"serinus-operator: {error}")
    except LeaseLost as error:
        log.critical("leadership lost: %s", error)
        # Threads and pending writes must not outlive leadership.
        os._exit(1)


if __name__ == "__main__":
    main()
