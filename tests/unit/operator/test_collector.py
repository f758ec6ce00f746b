"""When the collector asks, and whom it makes due."""

from __future__ import annotations

import asyncio

from serinus.cluster.store import Key, Store
from serinus.collector import IDLE_PERIOD, Collector
from serinus.evidence.book import Book
from serinus.evidence.client import Prometheus
from serinus.evidence.counters import Snapshot
from serinus.workqueue import WorkQueue

TICK = 2.0


class Answering(Prometheus):
    """A Prometheus without a server, that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def snapshot(self) -> Snapshot:
        self.asked += 1
        return Snapshot(0.0, {})


class Noting(WorkQueue):
    def __init__(self) -> None:
        self.added: list[Key] = []

    def add(self, key: Key) -> None:
        self.added.append(key)

    def __len__(self) -> int:
        return 0


def owner(name: str, *, releasing: bool) -> dict[str, object]:
    status = {"phase": "Canary", "release": {"revision": "r"}} if releasing else {"phase": "Live"}
    meta = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1"}
    return {"kind": "ModelDeployment", "metadata": meta, "status": status}


def turns(seconds: float, *, releasing: bool) -> tuple[list[Key], int]:
    """Keys made due, and how often Prometheus was asked, in so many seconds."""
    store, queue, prometheus, now = Store(), Noting(), Answering(), [1000.0]
    store.put(owner("settled", releasing=False))
    store.put(owner("other", releasing=releasing))
    collector = Collector(prometheus, Book(), store, queue, TICK, lambda: now[0])
    for _ in range(round(seconds / TICK)):
        asyncio.run(collector.tick())
        now[0] += TICK
    return queue.added, prometheus.asked


def test_settled_ones_are_looked_at_though_a_release_is_under_way() -> None:
    added, asked = turns(4 * IDLE_PERIOD, releasing=True)
    assert added.count(("ns", "settled")) == 4
    assert added.count(("ns", "other")) == asked == 4 * IDLE_PERIOD / TICK


def test_at_rest_prometheus_is_asked_rarely() -> None:
    added, asked = turns(4 * IDLE_PERIOD, releasing=False)
    assert asked == 4
    assert added.count(("ns", "settled")) == 4
