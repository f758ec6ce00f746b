"""When the collector asks, and whom it makes due."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import pytest

from serinus.cluster.store import Key, Store
from serinus.collector import FRESH, IDLE_PERIOD, Collector
from serinus.evidence.book import Book
from serinus.evidence.client import Prometheus
from serinus.evidence.counters import Snapshot
from serinus.evidence.mirrored import COUNTS, FIGURES
from serinus.evidence.queries import COUNTERS, RATES
from serinus.workqueue import WorkQueue
from unit.evidence.test_client import server, vector

TICK = 2.0


class Answering(Prometheus):
    """A Prometheus without a server, that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def snapshot(self, own: Collection[str] = ()) -> Snapshot:
        self.asked += 1
        return Snapshot(0.0, {})


class Noting(WorkQueue):
    def __init__(self) -> None:
        self.added: list[Key] = []

    def add(self, key: Key) -> None:
        self.added.append(key)

    def __len__(self) -> int:
        return 0


def owner(name: str, *, releasing: bool) -> dict[str, Any]:
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


def test_a_fresh_promotion_is_looked_at_on_every_tick_and_an_old_one_rarely() -> None:
    """After a switch all users are on the new version: a quarter of a minute between two looks is their failures."""
    promoted = 1_700_000_000.0
    since = datetime.fromtimestamp(promoted, UTC).isoformat().replace("+00:00", "Z")
    watched = owner("watched", releasing=False)
    watched["status"]["watch"] = {"revision": "r", "since": since}
    store, queue, prometheus, now = Store(), Noting(), Answering(), [promoted]
    store.put(watched)
    store.put(owner("settled", releasing=False))
    collector = Collector(prometheus, Book(), store, queue, TICK, lambda: now[0], lambda: now[0])

    def turn(seconds: float) -> tuple[int, int]:
        queue.added.clear()
        for _ in range(round(seconds / TICK)):
            asyncio.run(collector.tick())
            now[0] += TICK
        return queue.added.count(("ns", "watched")), queue.added.count(("ns", "settled"))

    often, rarely = turn(FRESH)
    assert often == FRESH / TICK
    assert rarely < FRESH / IDLE_PERIOD + 1
    often, rarely = turn(FRESH)
    assert often == rarely


@pytest.mark.parametrize("watch", [None, {}, {"since": "soon"}, {"since": "2023-11-14T22:13:20"}])
def test_a_watch_that_says_nothing_is_no_reason_to_look_often(watch: dict[str, str] | None) -> None:
    store, queue, now = Store(), Noting(), [1_700_000_000.0]
    odd = owner("odd", releasing=False)
    odd["status"]["watch"] = watch
    store.put(odd)
    collector = Collector(Answering(), Book(), store, queue, TICK, lambda: now[0], lambda: now[0])
    for _ in range(5):
        asyncio.run(collector.tick())
        now[0] += TICK
    assert queue.added == [("ns", "odd")]


def test_at_rest_prometheus_is_asked_rarely() -> None:
    added, asked = turns(4 * IDLE_PERIOD, releasing=False)
    assert asked == 4
    assert added.count(("ns", "settled")) == 4


QUERY = "sum by (model_namespace, model_deployment, revision) (rate(declined_total[5m]))"


@pytest.mark.parametrize("releases", [1, 500])
def test_queries_of_a_tick_do_not_depend_on_how_many_releases_run(releases: int) -> None:
    """One per built-in metric, and one per different query of users, for the whole cluster."""
    asked: list[str] = []
    with server(200, vector(), asked) as url:
        prometheus, store = Prometheus(url), Store()
        for n in range(releases):
            obj = owner(f"m{n}", releasing=True)
            obj["spec"] = {"release": {"analysis": {"metrics": [{"name": "declined", "query": QUERY, "max": 5}]}}}
            store.put(obj)
        collector = Collector(prometheus, Book(), store, Noting(), TICK)
        asyncio.run(collector.tick())
        prometheus.close()
    assert sorted(asked) == sorted([*COUNTERS.values(), *RATES.values(), COUNTS, FIGURES, QUERY])


def test_own_queries_are_asked_at_their_interval_and_kept_in_between() -> None:
    asked: list[str] = []
    now = [1000.0]
    with server(200, vector("7"), asked) as url:
        prometheus, store, book = Prometheus(url), Store(), Book()
        obj = owner("fraud", releasing=True)
        metric = {"name": "declined", "query": QUERY, "max": 5, "interval": "10s"}
        obj["spec"] = {"release": {"analysis": {"metrics": [metric]}}}
        store.put(obj)
        collector = Collector(prometheus, book, store, Noting(), TICK, lambda: now[0])
        for _ in range(11):
            asyncio.run(collector.tick())
            assert book.read(("ns", "fraud"))[0].own == {QUERY: {"r": 7.0}}
            now[0] += TICK
        prometheus.close()
    assert asked.count(QUERY) == 3
