"""The engine beside us, from the first time it is ready to the last request: pool, circuit, health, warm-up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from serinus_runtime import logs
from serinus_runtime.config import Config
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.metrics import Metrics
from serinus_runtime.predictionlog import PredictionLog
from serinus_runtime.proxy import settings, warmup
from serinus_runtime.proxy.app import ProxyApp
from serinus_runtime.proxy.breaker import Breaker
from serinus_runtime.proxy.desk import Desk
from serinus_runtime.proxy.health import Health
from serinus_runtime.proxy.meters import Meters
from serinus_runtime.proxy.pool import Pool
from serinus_runtime.proxy.record import Recorder
from serinus_runtime.state import State

if TYPE_CHECKING:
    from serinus_runtime.proxy.grpcservice import ProxyService

_SWEEP_SECONDS = 0.05
_LOOK_SECONDS = 1.0
_TELL_SECONDS = 30.0


class Beside:
    """`app` answers from the start; `open` ends when the engine may be asked. Raises FailureError(INVALID_CONFIG)."""

    def __init__(self, config: Config, state: State, metrics: Metrics) -> None:
        self._config = config
        self._settings = known = settings.read(config)
        self._pool = Pool(
            known.host,
            known.port,
            limit=config.proxy_concurrency,
            queue=config.queue_max_length,
            queue_bytes=config.queue_max_bytes,
        )
        breaker = Breaker(patience=2 * known.timeout)
        meters = Meters(self._pool, breaker)
        self._health = Health(self._pool, config.proxy_health, known.authority)
        self._desk = Desk(known, self._pool, breaker, meters, metrics, state, config.queue_timeout)
        self.app = ProxyApp(self._desk)
        self.grpc: ProxyService | None = None
        """What stands behind the gRPC port, where the engine has one too."""
        if config.proxy_grpc_url and config.grpc_port is not None:
            from serinus_runtime.proxy.grpcopening import open_service

            self.grpc = open_service(config, self._desk, lambda: self._desk.serving)
            metrics.collect_more.append(self.grpc.collect)
        self._tasks: list[asyncio.Task[None]] = []
        state.fronted = lambda: self._desk.serving and self._health.ready
        metrics.queue_depth = lambda: self._pool.waiting
        metrics.collect_engine = meters.collect
        metrics.rejected.setdefault("circuit_open", 0)

    @property
    def runtime(self) -> str:
        """What the model's info calls the engine."""
        return f"proxy {self._config.proxy_url}"

    async def open(self) -> None:
        """Waits until the engine is ready, however long that takes (a probe of Kubernetes bounds it), and warms it up.

        Raises FailureError(WARMUP_FAILED).
        """
        self._tasks.append(asyncio.create_task(self._sweep()))
        told = time.monotonic() - _TELL_SECONDS
        while not await self._health.look():
            if time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                logs.event("info", "waiting for the engine", url=self._config.proxy_url, why=self._health.why)
            await asyncio.sleep(_LOOK_SECONDS)
        try:
            await self._warm_up()
        except warmup.WarmupError as error:
            raise FailureError(Reason.WARMUP_FAILED, str(error)) from None
        self._desk.serving = True
        self._tasks.append(asyncio.create_task(self._watch()))

    def record(self, log: PredictionLog) -> None:
        """Writes a line per request from now on."""
        config = self._config
        self._desk.recorder = recorder = Recorder(
            log.put, log.tail, payloads=config.prediction_log_payloads, redact=config.prediction_log_redact
        )
        if self.grpc is not None:
            self.grpc.record(recorder)

    async def close(self) -> None:
        """Drops all connections to the engine."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.grpc is not None:
            self.grpc.close()
        for end in list(self._desk.tunnels):
            end.abort()
        await self._pool.close()

    async def _warm_up(self) -> None:
        requests = warmup.read(self._config.model_dir)
        await warmup.run(requests, self._pool, self._settings.authority)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            self._pool.sweep(now)
            if self.grpc is not None:
                self.grpc.sweep(now)

    async def _watch(self) -> None:
        ready = True
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now_ready = await self._health.look()
            if now_ready and not ready:
                # It may have been restarted, and be cold.
                self._health.ready = False
                try:
                    await self._warm_up()
                except warmup.WarmupError as error:
                    now_ready, self._health.why = False, str(error)
                self._health.ready = now_ready
            if now_ready != ready:
                ready = now_ready
                if ready:
                    logs.event("info", "the engine is ready again")
                else:
                    logs.event("warning", "the engine is not ready", why=self._health.why)
