"""Errands are done once while they are asked for, bounded in number and time, and tell when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from serinus.errands import ErrandError, Errands
from serinus.release.errands import Errand, Result

OWNER = ("team", "fraud")


@dataclass(frozen=True)
class Say:
    word: str


class Site:
    """Runs what it is asked to when it is told so, and notes what happened."""

    def __init__(self, at_once: int = 16) -> None:
        self.begun: list[str] = []
        self.gone: list[str] = []
        self.due: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.open = asyncio.Event()
        self.started = asyncio.Semaphore(0)
        self.most = 0
        self._now = 0
        self.errands = Errands({Say: self._say}, self.due.put_nowait, at_once=at_once)

    async def _say(self, _owner: tuple[str, str], task: object) -> str:
        assert isinstance(task, Say)
        self.begun.append(task.word)
        self._now += 1
        self.most = max(self.most, self._now)
        self.started.release()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.gone.append(task.word)
            raise
        finally:
            self._now -= 1
        if task.word == "bad":
            raise ErrandError("nobody listens")
        if task.word == "broken":
            raise RuntimeError("a mistake")
        return task.word.upper()


def errand(word: str, key: str | None = None, limit: float = 3600.0) -> Errand:
    return Errand(key or word, Say(word), limit)


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())


def test_a_result_comes_once_and_stays_until_it_is_not_asked_for() -> None:
    async def story() -> None:
        site = Site()
        site.errands.ask(OWNER, [errand("hello")])
        await site.started.acquire()
        assert site.errands.results(OWNER) == {}
        site.errands.ask(OWNER, [errand("hello")])
        site.open.set()
        assert await site.due.get() == OWNER
        # A decision that could not be stored is made again: the result is still there, and nothing starts anew.
        for _ in range(2):
            assert site.errands.results(OWNER) == {"hello": Result("HELLO")}
        site.errands.ask(OWNER, [errand("hello")])
        assert site.errands.results(OWNER) == {"hello": Result("HELLO")}
        assert site.begun == ["hello"]
        site.errands.ask(OWNER, [])
        assert site.errands.results(OWNER) == {}

    run(story)


def test_what_is_no_longer_asked_for_is_stopped() -> None:
    async def story() -> None:
        site = Site()
        site.errands.ask(OWNER, [errand("old")])
        await site.started.acquire()
        site.errands.ask(OWNER, [errand("new", key="old")])
        await site.started.acquire()
        assert site.gone == ["old"]
        site.errands.forget(OWNER)
        await asyncio.sleep(0)
        assert site.gone == ["old", "new"]
        assert site.errands.results(OWNER) == {}
        assert site.due.empty()

    run(story)


def test_close_stops_everything() -> None:
    async def story() -> None:
        site = Site()
        site.errands.ask(OWNER, [errand("a"), errand("b")])
        await site.started.acquire()
        await site.started.acquire()
        await site.errands.close()
        assert sorted(site.gone) == ["a", "b"]

    run(story)


def test_only_so_many_at_once() -> None:
    async def story() -> None:
        site = Site(at_once=3)
        for number in range(10):
            site.errands.ask(("team", str(number)), [errand(str(number))])
        for _ in range(3):
            await site.started.acquire()
        await asyncio.sleep(0)
        assert len(site.begun) == 3
        site.open.set()
        for _ in range(10):
            await site.due.get()
        assert site.most == 3

    run(story)


@pytest.mark.parametrize(
    ("word", "limit", "said"),
    [
        ("bad", 3600.0, "nobody listens"),
        ("broken", 3600.0, "RuntimeError: a mistake"),
        ("slow", 0.0, "not done in 0 s"),
    ],
)
def test_what_goes_wrong_is_a_result(word: str, limit: float, said: str) -> None:
    async def story() -> None:
        site = Site()
        if word != "slow":
            site.open.set()
        site.errands.ask(OWNER, [errand(word, limit=limit)])
        await site.due.get()
        assert site.errands.results(OWNER) == {word: Result(problem=said)}

    run(story)


def test_an_unknown_task_is_a_result_too() -> None:
    async def story() -> None:
        due: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        errands = Errands({}, due.put_nowait)
        errands.ask(OWNER, [errand("hello")])
        await due.get()
        assert errands.results(OWNER)["hello"].problem == "nobody here can do Say"

    run(story)


def test_an_edge_with_nothing_to_do_is_there_all_the_same() -> None:
    """`if errands:` must not take it for none: no errand would ever begin."""
    assert Site().errands
