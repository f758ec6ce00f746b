"""Asks Prometheus on every tick, and makes keys due that may have news."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from serinus import telemetry
from serinus.api.analysis import Metric
from serinus.api.units import Duration
from serinus.cluster.store import Key, Store
from serinus.evidence.book import Book
from serinus.evidence.client import Prometheus, PrometheusUnavailable
from serinus.workqueue import WorkQueue

log = logging.getLogger(__name__)
IDLE_PERIOD = 15.0
"""Seconds between two looks while no release is under way."""
FRESH = 300.0
"""Seconds after a promotion in which it is looked at on every tick: all users have just got the new version."""


class Collector:
    """One snapshot per tick for the whole cluster, however many releases are under way."""

    def __init__(
        self,
        prometheus: Prometheus,
        book: Book,
        store: Store,
        queue: WorkQueue,
        tick: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._prometheus = prometheus
        self._book = book
        self._store = store
        self._queue = queue
        self._tick = tick
        self._clock = clock
        self._wall = wall
        self._round = -math.inf
        self._own: dict[str, float] = {}
        self._well = True
        self.beat = clock()
        """When the loop last came round; `/healthz` looks at it."""

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(max(0.0, self._tick - (self._clock() - self.beat)))

    async def tick(self) -> None:
        """One turn: asks where it is time to, and makes due those under way or just promoted, or everyone once per
        `IDLE_PERIOD`.

        The round over everyone has a clock of its own, so that a release somewhere does not keep the columns of the
        settled ones from being looked at.
        """
        self.beat = self._clock()
        active, fresh = self._census()
        everyone = self.beat - self._round >= IDLE_PERIOD
        if everyone:
            self._round = self.beat
        if active or fresh or everyone:
            await self._ask(self._due(active))
            for key in self._store.owners() if everyone else [*active, *fresh]:
                self._queue.add(key)
        telemetry.QUEUE_LENGTH.set(len(self._queue))

    def _census(self) -> tuple[list[Key], list[Key]]:
        """Those with a release under way, and those that have just ended one by a promotion."""
        phases: Counter[str] = Counter()
        active, fresh = [], []
        for key in self._store.owners():
            status = (self._store.owner(key) or {}).get("status") or {}
            phases[status.get("phase", "Pending")] += 1
            if status.get("release"):
                active.append(key)
            elif self._wall() - _since(status.get("watch")) < FRESH:
                fresh.append(key)
        telemetry.DEPLOYMENTS.clear()
        for phase, count in phases.items():
            telemetry.DEPLOYMENTS.labels(phase).set(count)
        return active, fresh

    def _due(self, active: list[Key]) -> list[str]:
        """Users' own queries of the releases under way that it is time to ask: equal ones once."""
        wanted: dict[str, float] = {}
        for key in active:
            release = ((self._store.owner(key) or {}).get("spec") or {}).get("release") or {}
            for metric in (release.get("analysis") or {}).get("metrics") or ():
                if query := metric.get("query"):
                    interval = _seconds(metric.get("interval"))
                    wanted[query] = min(interval, wanted.get(query, interval))
            for step in release.get("steps") or ():
                metric = (step.get("experiment") or {}).get("metric") or {}
                for query in filter(None, (metric.get("successes"), metric.get("trials"))):
                    interval = _seconds(metric.get("interval"))
                    wanted[query] = min(interval, wanted.get(query, interval))
        self._book.keep(wanted)
        self._own = {query: at for query, at in self._own.items() if query in wanted}
        due = [query for query, every in wanted.items() if self.beat - self._own.get(query, -math.inf) >= every]
        self._own.update(dict.fromkeys(due, self.beat))
        return due

    async def _ask(self, own: list[str]) -> None:
        try:
            with telemetry.SNAPSHOT_SECONDS.time():
                snapshot = await self._prometheus.snapshot(own)
        except PrometheusUnavailable as error:
            self._own.clear()
            self._book.fail(str(error))
            telemetry.SNAPSHOTS.labels("failed").inc()
            if self._well:
                log.warning("no evidence: %s; releases hold until it answers", error)
            self._well = False
        else:
            self._book.take(snapshot)
            telemetry.SNAPSHOTS.labels("ok").inc()
            if not self._well:
                log.info("Prometheus answers again")
            self._well = True
        telemetry.PROMETHEUS_UP.set(self._well)


def _since(watch: object) -> float:
    """When a stored watch began, in Unix seconds; long ago where there is none."""
    since = watch.get("since") if isinstance(watch, dict) else None
    try:
        found = datetime.fromisoformat(str(since))
    except ValueError:
        return -math.inf
    return found.timestamp() if found.tzinfo else -math.inf


def _seconds(interval: str | None) -> float:
    """A stored interval; the default where it is left out or cannot be read."""
    try:
        return Duration(interval or Metric.model_fields["interval"].default).seconds
    except ValueError:
        return Duration(Metric.model_fields["interval"].default).seconds
