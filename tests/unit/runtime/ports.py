"""An application of the test's own behind a real port, on an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from serinus_runtime.http import Exchange, HttpProtocol, Limits, Site
from unit.runtime.support import WAIT

_T = TypeVar("_T")


def until(condition: Callable[[], object], seconds: float = WAIT) -> None:
    """Waits until `condition()` holds; an AssertionError when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


class Loop:
    """An event loop in a thread; use as a context."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT)
        self.loop.close()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs `coroutine` there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT)

    def do(self, work: Callable[[], _T]) -> _T:
        """Calls `work` there."""

        async def run() -> _T:
            return work()

        return self.call(run())


class Port(Loop):
    """`handle` behind a port, swept often."""

    def __init__(self, handle: Callable[[Exchange], None], **limits: Any) -> None:
        super().__init__()
        self._handle = handle
        self._limits = Limits(**limits)
        self.site: Site
        self.port = 0

    def handle(self, exchange: Exchange) -> None:
        """What the site calls."""
        self._handle(exchange)

    def refused(self, target: bytes, status: int) -> None:
        """What the site tells."""

    def __enter__(self) -> Port:
        super().__enter__()
        self.call(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.call(self._close())
        super().__exit__(kind, error, at)

    async def _open(self) -> None:
        self.site = Site(self, self._limits, b"x-test: yes\r\n")
        self._server = await self.loop.create_server(lambda: HttpProtocol(self.site), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = self.loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.site.sweep(time.monotonic())

    async def _close(self) -> None:
        self._sweeper.cancel()
        self._server.close()
        for connection in list(self.site.connections):
            connection.abort()
        await asyncio.sleep(0)
