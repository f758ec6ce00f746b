"""Does errands away from the reconcile loop: bounded in number and time, each once for as long as it is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from serinus import telemetry
from serinus.release.errands import Errand, Result

log = logging.getLogger(__name__)
Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""
Runner = Callable[[Key, object], Awaitable[object]]
"""Does one task for a ModelDeployment and returns what it found.

Raises:
    ErrandError: it could not be done; the text is for people.
"""
AT_ONCE = 16
"""Errands of one kind, in the whole cluster, that are under way at a time; more wait."""


class ErrandError(Exception):
    """Why an errand could not be done."""


@dataclass
class _Underway:
    errand: Errand
    task: asyncio.Task[None]
    result: Result | None = None


class Errands:
    """Errands by ModelDeployment.

    Args:
        runners: who does a task, by the task's type.
        due: makes a ModelDeployment due for a reconcile, because an errand of it ended.
        at_once: errands of one kind that are under way at a time.
    """

    def __init__(self, runners: Mapping[type, Runner], due: Callable[[Key], None], *, at_once: int = AT_ONCE) -> None:
        self._runners = runners
        self._due = due
        # A kind of its own each: receivers of messages that hang must not keep a smoke test waiting.
        self._rooms: defaultdict[type, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(at_once))
        self._known: dict[Key, dict[str, _Underway]] = {}

    def results(self, owner: Key) -> Mapping[str, Result]:
        """Results by the errands' keys. They stay until `ask` no longer names them, so that a decision which could
        not be stored finds them again."""
        known = self._known.get(owner, {})
        return {key: each.result for key, each in known.items() if each.result is not None}

    def ask(self, owner: Key, errands: Iterable[Errand]) -> None:
        """Starts what is new, and drops what is no longer asked for. Call it once a decision is stored."""
        before, after = self._known.pop(owner, {}), dict[str, _Underway]()
        for errand in errands:
            known = before.pop(errand.key, None)
            if known is not None and known.errand != errand:
                known.task.cancel()
                known = None
            after[errand.key] = known or self._start(owner, errand)
        for gone in before.values():
            gone.task.cancel()
        if after:
            self._known[owner] = after

    def forget(self, owner: Key) -> None:
        """The ModelDeployment is gone."""
        self.ask(owner, ())

    async def close(self) -> None:
        """Ends what is under way: it is done again by whoever leads next."""
        tasks = [each.task for known in self._known.values() for each in known.values()]
        self._known.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, owner: Key, errand: Errand) -> _Underway:
        task = asyncio.create_task(self._do(owner, errand), name=f"errand {'/'.join(owner)} {errand.key}")
        return _Underway(errand, task)

    async def _do(self, owner: Key, errand: Errand) -> None:
        kind = type(errand.task).__name__
        async with self._rooms[type(errand.task)]:
            result, outcome = await self._result(owner, errand)
        telemetry.ERRANDS.labels(kind, outcome).inc()
        known = self._known.get(owner, {}).get(errand.key)
        if known is not None and known.errand is errand:
            known.result = result
            self._due(owner)

    async def _result(self, owner: Key, errand: Errand) -> tuple[Result, str]:
        runner = self._runners.get(type(errand.task))
        if runner is None:
            return Result(problem=f"nobody here can do {type(errand.task).__name__}"), "failed"
        try:
            async with asyncio.timeout(errand.limit):
                return Result(await runner(owner, errand.task)), "done"
        except TimeoutError:
            return Result(problem=f"not done in {errand.limit:g} s"), "timeout"
        except ErrandError as error:
            return Result(problem=str(error)), "failed"
        except Exception as error:
            log.exception("errand %s failed", errand.key, extra={"object": "/".join(owner)})
            return Result(problem=f"{type(error).__name__}: {error}"[:300]), "failed"
