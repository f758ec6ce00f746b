"""Whether the engine is ready: asked by us now and then, so that probes of ours cost it nothing."""

from __future__ import annotations

import asyncio
import time

import msgspec

from serinus_runtime.proxy.headers import request_head
from serinus_runtime.proxy.pool import Pool
from serinus_runtime.proxy.problems import Problem

USUAL_PATHS = ("/v2/health/ready", "/health", "/healthz", "/readyz", "/ping")
"""Tried one after the other where nothing else is said: Triton, MLServer; vLLM, TGI; habits; TorchServe, SageMaker."""
_UNKNOWN = (404, 405, 501)
_BODY_BYTES = 1 << 20


class Reply(msgspec.Struct, frozen=True):
    """An answer of the engine; of its body no more than the first MiB."""

    status: int
    body: bytes


class _Waiter:
    """A receiver for callers that can wait."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = b""

    def head(self, status: int, phrase: bytes, headers: list[tuple[bytes, bytes]], length: int | None) -> None:
        self._status = status

    def piece(self, data: bytes) -> None:
        if len(self._body) < _BODY_BYTES:
            self._body += data

    def fed(self) -> None:
        return

    def done(self) -> None:
        if not self.reply.done():
            self.reply.set_result(Reply(self._status, self._body))

    def upgraded(self, transport: asyncio.Transport, rest: bytes) -> None:
        transport.abort()
        self.broken(Problem("the engine switched protocols unasked"))

    def broken(self, problem: Problem) -> None:
        if not self.reply.done():
            self.reply.set_exception(problem)


async def ask(
    pool: Pool,
    method: str,
    path: str,
    *,
    host: bytes,
    headers: dict[bytes, bytes] | None = None,
    body: bytes = b"",
    seconds: float = 5.0,
) -> Reply:
    """One request on a connection of its own, beside the queue. Raises Problem."""
    upstream = await pool.open()
    waiter = _Waiter()
    head = request_head(
        method.encode(), path.encode(), headers or {}, host=host, request_id=b"serinus-probe", size=len(body)
    )
    try:
        deadline = time.monotonic() + seconds
        upstream.send(head + body, waiter, bodyless=method == "HEAD", deadline=deadline, patience=seconds)
        async with asyncio.timeout(seconds):
            return await waiter.reply
    except TimeoutError:
        raise Problem(f"{method} {path} was not answered within {seconds:g} s", timeout=True) from None
    finally:
        upstream.drop()


class Health:
    """The engine's readiness as it was last seen. `path` empty: the usual ones are tried, and the first that the engine
    knows is kept; an engine that knows none of them is ready when it answers at all."""

    def __init__(self, pool: Pool, path: str, host: bytes, *, seconds: float = 5.0) -> None:
        self._pool = pool
        self._host = host
        self._seconds = seconds
        self._asked = path
        self._found = path
        self.ready = False
        self.why = "the engine was not asked yet"
        """Why it is not ready."""

    async def look(self) -> bool:
        """Asks now; true when the engine is ready."""
        try:
            self.why = await self._look()
        except Problem as problem:
            self.why = str(problem)
            self._found = self._asked
        self.ready = not self.why
        return self.ready

    async def _look(self) -> str:
        if self._found:
            status = await self._status(self._found)
            if 200 <= status < 300 or (not self._asked and self._found == "/" and status < 500):
                return ""
            if self._asked or status not in _UNKNOWN:
                return f"{self._found} of the engine answers {status}"
        for path in USUAL_PATHS:
            status = await self._status(path)
            if status not in _UNKNOWN:
                self._found = path
                return "" if 200 <= status < 300 else f"{path} of the engine answers {status}"
        self._found = "/"
        return ""

    async def _status(self, path: str) -> int:
        return (await ask(self._pool, "GET", path, host=self._host, seconds=self._seconds)).status
