"""`/predictions/M` as TorchServe's own clients use it: bodies of any kind, passed to the engine as they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import msgspec

from serinus_runtime import logs
from serinus_runtime.engine import EngineError, EngineTimeoutError, EngineUnavailableError
from serinus_runtime.http import JSON, Exchange
from serinus_runtime.metrics import Metrics
from serinus_runtime.state import GOING, State
from serinus_runtime.tickets import Ticket

_THREADS = 32
_RETRY = b"retry-after: 1\r\n"


class RawReply(Protocol):
    """What the engine answered."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def content_type(self) -> str:
        """The body's type."""

    @property
    def body(self) -> bytes:
        """The body."""


@runtime_checkable
class RawEngine(Protocol):
    """An engine that has bodies of its own beside tensors."""

    def predict_raw(self, body: bytes, content_type: str) -> RawReply:
        """Its own answer. Called from many threads. Raises EngineError and its kinds."""


class Predictions:
    """The routes of one raw engine; at most `waiting` requests are under way."""

    def __init__(self, engine: RawEngine, state: State, metrics: Metrics, waiting: int, batch: int) -> None:
        self._engine = engine
        self._state = state
        self._metrics = metrics
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(min(max(batch, 2), _THREADS), thread_name_prefix="serinus-raw")
        self.under_way = 0
        """Requests that the engine has not answered yet."""
        self._wanted: set[Exchange] = set()

    def routes(self, name: str, version: str) -> dict[bytes, Callable[[Exchange], None]]:
        """By path."""
        path = f"/predictions/{name}"
        return {path.encode(): self._predict, f"{path}/{version}".encode(): self._predict, b"/ping": self._ping}

    def close(self) -> None:
        """Takes no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ping(self, exchange: Exchange) -> None:
        ready = self._state.ready
        status = {"status": "Healthy" if ready else "Unhealthy"}
        exchange.respond(200 if ready else 503, msgspec.json.encode(status))

    def _predict(self, exchange: Exchange) -> None:
        state = self._state
        self._metrics.inflight += 1
        if exchange.method != b"POST":
            self._refuse(exchange, "invalid", 405, "POST a body for the handler here", b"allow: POST\r\n")
        elif state.refusing:
            exchange.close = True
            self._refuse(exchange, *GOING)
        elif state.ingress is not None and (refusal := state.ingress.admit(exchange, Ticket({}, 0, ()))) is not None:
            self._refuse(exchange, *refusal)
        elif self.under_way >= self._waiting:
            self._refuse(exchange, "queue_full", 429, "the queue is full: try again later", _RETRY)
        else:
            body, content_type = exchange.body, exchange.headers.get(b"content-type", b"").decode("latin-1")
            if content_type.partition(";")[0].strip().lower() == "application/json" and not _is_json(body):
                self._refuse(exchange, "invalid", 400, "the body is not JSON, as its content type says")
                return
            self.under_way += 1
            exchange.body = b""
            self._wanted.add(exchange)
            exchange.on_gone = lambda: self._gone(exchange)
            self._pool.submit(self._work, exchange, body, content_type)

    def _gone(self, exchange: Exchange) -> None:
        self._wanted.discard(exchange)
        self._metrics.inflight -= 1

    def _work(self, exchange: Exchange, body: bytes, content_type: str) -> None:
        found: RawReply | Exception
        try:
            found = self._engine.predict_raw(body, content_type)
        except Exception as error:
            found = error
        try:
            self._loop.call_soon_threadsafe(self._done, exchange, found)
        except RuntimeError:
            return

    def _done(self, exchange: Exchange, found: RawReply | Exception) -> None:
        self.under_way -= 1
        if exchange not in self._wanted:
            return
        self._wanted.discard(exchange)
        exchange.on_gone = None
        if isinstance(found, EngineTimeoutError):
            self._refuse(exchange, "timeout", 504, f"the model failed: {found}")
        elif isinstance(found, EngineUnavailableError):
            self._finish(exchange, 503, msgspec.json.encode({"error": str(found)}), headers=_RETRY)
        elif isinstance(found, Exception):
            text = f"the model failed: {found}" if isinstance(found, EngineError) else "internal error"
            logs.event("error", "inference failed", error=repr(found)[:500])
            self._finish(exchange, 500, msgspec.json.encode({"error": text}))
        else:
            kind = found.content_type.encode("latin-1", "replace")
            if b"\r" in kind or b"\n" in kind:
                kind = b"application/octet-stream"
            self._finish(exchange, found.status, found.body, kind)

    def _refuse(self, exchange: Exchange, reason: str, status: int, message: str, headers: bytes = b"") -> None:
        self._metrics.rejected[reason] += 1
        self._finish(exchange, status, msgspec.json.encode({"error": message}), headers=headers)

    def _finish(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b""
    ) -> None:
        self._metrics.inflight -= 1
        self._metrics.answered(status, time.monotonic() - exchange.received)
        exchange.respond(status, body, content_type, headers)


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return False
    return True
