"""One model in service: everything around it that begins and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from serinus_runtime.asked import Front
from serinus_runtime.batching import Batcher
from serinus_runtime.config import Config
from serinus_runtime.costs import Costs
from serinus_runtime.documents import documents
from serinus_runtime.drift.opening import open_monitor
from serinus_runtime.extras import Extras
from serinus_runtime.friendly import Predict, PredictV1
from serinus_runtime.loading import Loaded
from serinus_runtime.metrics import Metrics
from serinus_runtime.oip import InferCodec
from serinus_runtime.predictionlog import PredictionLog
from serinus_runtime.predictions import Predictions, RawEngine
from serinus_runtime.runner import LoopScheduler, ThreadRunner, cores
from serinus_runtime.shadow.front import TapFront
from serinus_runtime.shadow.opening import open_tap
from serinus_runtime.sinks.opening import open_log
from serinus_runtime.state import Model, State
from serinus_runtime.statistics import Statistics

if TYPE_CHECKING:
    from serinus_runtime.grpc.endpoint import Endpoint

_STRING_WEIGHT = 12
"""A string of two characters: five bytes of JSON, some sixty as an object with its place in an array."""


class Serving:
    """A warm model with its queue, threads, log and caches. Belongs to the event loop.

    `announce`: requests go to it from now on. `enter`: metrics, probes and log are its own from now on. `leave`, then
    `close`: it is over.
    """

    def __init__(
        self, config: Config, loaded: Loaded, state: State, metrics: Metrics, extras: Extras, grpc: Endpoint | None
    ) -> None:
        """Raises FailureError for a log that cannot be opened; the engine is the caller's then."""
        self.config = config
        self.loaded = loaded
        self._state = state
        self._metrics = metrics
        self._extras = extras
        loop, engine, signature, about = asyncio.get_running_loop(), loaded.engine, loaded.signature, loaded.about
        self._log = open_log(config, loaded.digest, engine.runtime, about.columns)
        if self._log is not None:
            self._log.soon = loop.call_soon
        self._runner = ThreadRunner(
            loop, engine.instances, cores=cores() if config.pin_threads else (), stuck_after=config.stuck_after
        )
        statistics = Statistics()
        max_size = min(loaded.max_batch or config.usual_batch, config.queue_max_length)

        def observe(rows: int, seconds: float) -> None:
            metrics.batch(rows, seconds)
            statistics.batch(rows, seconds)

        self._drift = drift = open_monitor(config, signature, about)
        run = engine.run if drift is None else drift.watching(engine.run)
        self._circuit = extras.circuit(run)
        self.batcher = Batcher(
            run if self._circuit is None else self._circuit.run,
            self._runner,
            LoopScheduler(loop),
            batched=signature.batched,
            max_size=max_size,
            max_delay=config.batch_max_delay,
            queue_rows=config.queue_max_length,
            queue_bytes=config.queue_max_bytes,
            timeout=config.queue_timeout,
            observe=observe,
            soon=loop.call_soon,
            costs=Costs(loaded.costs),
            preferred=config.batch_preferred,
            ragged=loaded.ragged,
        )
        self._cache = extras.cache(config, signature, loaded.digest)
        self._tracing = extras.tracing(config, loaded.digest)
        codec = InferCodec(config.model_name, config.model_version, signature, about)
        fronts: dict[str, Front] = {
            "infer": codec,
            "v1": PredictV1(signature, about),
            "predict": Predict(signature, about),
        }
        if grpc is not None:
            fronts["grpc"] = grpc.front(config, codec, signature, about)
        self._tap: TapFront | None = None
        self._raw: Predictions | None = None
        if isinstance(engine, RawEngine):
            self._raw = Predictions(engine, state, metrics, config.queue_max_length, max_size)
        self._model = Model(
            codec,
            self.batcher,
            engine.platform,
            fronts,
            documents(
                config.model_name,
                config.model_version,
                engine,
                signature,
                about,
                max_size,
                extras.describe,
                loaded.unproved,
            ),
            statistics,
            _STRING_WEIGHT if any(spec.datatype == "BYTES" for spec in signature.inputs) else 1,
            loaded.unproved,
        )

    @property
    def idle(self) -> bool:
        """True when nothing waits for this model's answer any more."""
        return not (
            self.batcher.waiting_rows
            or self.batcher.busy
            or (self._raw is not None and self._raw.under_way)
            or (self._cache is not None and self._cache.asking)
        )

    def announce(self) -> None:
        """New requests are read for this model and wait for it. What is remembered is not asked before `enter`."""
        state, config = self._state, self.config
        state.model, state.cache = self._model, None
        state.raw = {} if self._raw is None else self._raw.routes(config.model_name, config.model_version)

    def enter(self) -> None:
        """Probes, metrics and the log tell of this model."""
        state, metrics, config, loaded, batcher = self._state, self._metrics, self.config, self.loaded, self.batcher
        engine, runner = loaded.engine, self._runner
        state.cache, state.tracing, state.predictions = self._cache, self._tracing, self._log
        state.tap = None
        self._tap = open_tap(config, state, self._metrics, loaded.signature, loaded.about, engine.prepared)
        state.alive = lambda: runner.alive() and engine.alive()
        state.engine_ready = engine.ready
        self._extras.use(self._circuit)
        metrics.queue_limit = config.queue_max_length
        metrics.queue_depth = lambda: batcher.waiting_rows
        metrics.collect_engine = engine.collect
        metrics.collect_drift = None if self._drift is None else self._drift.collect
        metrics.cache = None if self._cache is None else self._cache.memory
        metrics.predictions = None if self._log is None else partial(_lines, self._log)
        metrics.collect_more += [part.collect for part in (self._cache, self._tracing, self._circuit) if part]
        metrics.loaded(model=config.model_name, digest=loaded.digest, runtime=engine.runtime, seconds=loaded.seconds)
        metrics.proved = not loaded.unproved

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        if self._tap is not None:
            self._tap.sweep(now)

    def leave(self) -> None:
        """Its counters are told no more."""
        mine = [part.collect for part in (self._cache, self._tracing, self._circuit) if part]
        self._metrics.collect_more[:] = [each for each in self._metrics.collect_more if each not in mine]

    def vacate(self) -> None:
        """Nobody takes its place: probes and metrics tell of no model."""
        state = self._state
        state.cache = state.tracing = state.predictions = state.tap = state.tapped = None
        state.alive = state.engine_ready = lambda: True
        self._extras.use(None)
        self._metrics.unloaded()

    async def close(self) -> None:
        """Ends its threads, writes what its log still has, and gives its memory back. May take seconds."""
        in_thread = asyncio.get_running_loop().run_in_executor
        if self._tap is not None:
            self._tap.close()
        if self._log is not None:
            self._log.flush()
            await in_thread(None, self._log.close)
        if self._tracing is not None:
            await in_thread(None, self._tracing.close)
        if self._cache is not None and self._cache.shared is not None:
            await self._cache.shared.close()
        if self._drift is not None:
            await in_thread(None, self._drift.close)
        if self._raw is not None:
            self._raw.close()
        await in_thread(None, self._runner.close)
        await in_thread(None, self.loaded.engine.close)


def _lines(log: PredictionLog) -> Mapping[str, int]:
    return {"written": log.written, "dropped": log.lost}
