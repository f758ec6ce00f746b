"""A server process from start to end: ports, verify, load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from serinus_runtime import __version__, logs, predictionlog
from serinus_runtime.about import About
from serinus_runtime.about import read as read_about
from serinus_runtime.app import InferenceApp, MetricsApp
from serinus_runtime.batching import Batcher
from serinus_runtime.config import Config
from serinus_runtime.costs import Costs
from serinus_runtime.digest import verify
from serinus_runtime.documents import documents
from serinus_runtime.drift.monitor import DriftMonitor
from serinus_runtime.drift.opening import open_monitor
from serinus_runtime.engine import Engine, Signature
from serinus_runtime.engine.registry import open_engine
from serinus_runtime.extras import Extras
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.friendly import Predict, PredictV1
from serinus_runtime.http import Application, Limits, Site, connection
from serinus_runtime.http.site import header_line
from serinus_runtime.identity import Identity
from serinus_runtime.listening import refuse_new
from serinus_runtime.metrics import Metrics
from serinus_runtime.oip import Front, InferCodec
from serinus_runtime.predictions import Predictions, RawEngine
from serinus_runtime.ragged import Ragged, open_ragged
from serinus_runtime.runner import LoopScheduler, ThreadRunner, cores
from serinus_runtime.sinks.opening import open_sink
from serinus_runtime.state import Model, State
from serinus_runtime.statistics import Statistics
from serinus_runtime.warmup import measure, warm_up

if TYPE_CHECKING:
    from serinus_runtime.grpc.endpoint import Endpoint
    from serinus_runtime.proxy.beside import Beside

PROXY = "proxy"
"""What SERINUS_ENGINE says for an engine in a container beside this one."""
_BACKLOG = 2048
_LAST_REQUESTS_SECONDS = 0.25
"""How long connections stay open once nothing new is accepted, for requests that are already on the wire."""
_HANDSHAKE_SECONDS = 0.05
"""For handshakes that had begun when new ones were stopped."""
_GRPC = 2
"""Where the gRPC port is among the listening ones."""
_STRING_WEIGHT = 12
"""A string of two characters: five bytes of JSON, some sixty as an object with its place in an array."""


class Loaded(msgspec.Struct, frozen=True):
    """A model that is verified, loaded and warm."""

    engine: Engine
    signature: Signature
    digest: str
    seconds: float
    about: About = About()
    costs: dict[int, float] = {}
    """Seconds per batch by its rows, as warm-up measured them; without, nothing runs on the event loop."""
    ragged: Ragged | None = None


def load_model(config: Config) -> Loaded:
    """Verifies, loads and warms up the model of `config`. Takes its time. Raises FailureError."""
    started = time.monotonic()
    digest = verify(config.model_dir, config.model_digest)
    engine = open_engine(config)
    try:
        ragged = open_ragged(config.model_dir, engine.signature)
        lengths = ragged.lengths() if ragged is not None else ()
        signature = warm_up(engine, config.batch_max_size, config.batch_preferred, lengths)
        # What a batch costs depends on its lengths where there are any: such ones never run on the event loop.
        measurable = engine.inline and ragged is None
        costs = measure(engine, signature, config.batch_max_size) if measurable else {}
        about = read_about(config.model_dir, signature)
    except BaseException:
        engine.close()
        raise
    ragged = ragged if signature.batched else None
    return Loaded(engine, signature, digest, time.monotonic() - started, about, costs, ragged)


class Server:
    """One process' ports and model. `start`, then `load`, then `drain` and `stop`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.state = State()
        self.metrics = Metrics(
            namespace=config.namespace,
            deployment=config.deployment,
            revision=config.revision,
            model_version=config.model_version,
            slo_latency=config.slo_latency,
            max_batch=config.batch_max_size,
        )
        self._extras = Extras(config, self.state, self.metrics)
        limits = Limits(
            body_bytes=config.max_request_bytes,
            receive_bytes=config.receive_max_bytes,
            connections=config.max_connections,
            request_seconds=config.request_timeout,
            keep_alive_seconds=config.keep_alive,
        )
        self._beside: Beside | None = None
        app: Application = InferenceApp(config.model_name, config.model_version, self.state, self.metrics)
        if config.engine == PROXY:
            from serinus_runtime.proxy.beside import Beside

            self._beside = Beside(config, self.state, self.metrics)
            app = self._beside.app
        self._site = Site(app, limits, self._headers(config.model_digest))
        self._metrics_site = Site(MetricsApp(self.state, self.metrics), Limits(connections=256, body_bytes=0))
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._runner: ThreadRunner | None = None
        self._engine: Engine | None = None
        self._raw: Predictions | None = None
        self._drift: DriftMonitor | None = None
        self._grpc: Endpoint | None = None
        if config.grpc_port is not None and self._beside is None:
            from serinus_runtime.grpc.endpoint import Endpoint

            self._grpc = Endpoint(config, self.state, self.metrics)
        self.http_port = 0
        self.metrics_port = 0
        self.grpc_port = 0

    def receiving(self) -> int:
        """Bytes of request bodies that are not whole yet."""
        return self._site.received_bytes + (self._grpc.received_bytes if self._grpc is not None else 0)

    def _headers(self, digest: str) -> bytes:
        config = self._config
        return (
            header_line("x-model-version", config.model_version)
            + header_line("x-model-digest", digest or "unknown")
            + header_line("x-serinus-revision", config.revision or "none")
        )

    async def start(self) -> None:
        """Opens all ports: alive, not ready. Raises FailureError(INVALID_CONFIG) when one is taken."""
        self.http_port = await self._listen(self._config.http_port, lambda: connection(self._site))
        self.metrics_port = await self._listen(self._config.metrics_port, lambda: connection(self._metrics_site))
        if self._grpc is not None and self._config.grpc_port is not None:
            self.grpc_port = await self._listen(self._config.grpc_port, self._grpc.protocol)
        self._sweeper = asyncio.create_task(self._sweep())
        logs.event(
            "info", "listening", http_port=self.http_port, metrics_port=self.metrics_port, grpc_port=self.grpc_port
        )

    async def _listen(self, port: int, protocol: Callable[[], asyncio.Protocol]) -> int:
        host = self._config.host
        try:
            if host:
                listener = socket.create_server((host, port), backlog=_BACKLOG, family=_family(host))
            elif socket.has_dualstack_ipv6():
                listener = socket.create_server(
                    ("", port), backlog=_BACKLOG, family=socket.AF_INET6, dualstack_ipv6=True
                )
            else:
                listener = socket.create_server(("", port), backlog=_BACKLOG)
        except OSError as error:
            raise FailureError(
                Reason.INVALID_CONFIG, f"cannot listen on port {port}: {error}; choose others with SERINUS_HTTP_PORT, "
                "SERINUS_METRICS_PORT and SERINUS_GRPC_PORT"
            ) from error  # fmt: skip
        listener.setblocking(False)
        # A copy keeps the kernel's queue of connections when asyncio closes its own; see _stop_accepting.
        self._sockets.append(listener.dup())
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(protocol, sock=listener, backlog=_BACKLOG))
        bound: int = listener.getsockname()[1]
        return bound

    async def _sweep(self) -> None:
        step = min(1.0, self._config.request_timeout / 4)
        while True:
            await asyncio.sleep(step)
            now = time.monotonic()
            self._site.sweep(now)
            self._metrics_site.sweep(now)
            if self._grpc is not None:
                self._grpc.sweep(now)
            self._extras.sweep()

    async def load(self) -> None:
        """Loads the model without holding up the ports; ready afterwards. Raises FailureError."""
        loop = asyncio.get_running_loop()
        if self._beside is not None:
            await self._open_beside(self._beside)
        else:
            self.serve(await loop.run_in_executor(None, load_model, self._config))

    async def _open_beside(self, beside: Beside) -> None:
        """Takes the engine beside us into service, as soon as it is ready."""
        config, started, digest = self._config, time.monotonic(), ""
        if config.model_digest or config.model_dir.is_dir():
            loop = asyncio.get_running_loop()
            digest = await loop.run_in_executor(None, verify, config.model_dir, config.model_digest)
        self._site.set_common_headers(self._headers(digest))
        if config.prediction_log != predictionlog.OFF:
            beside.record(self._open_prediction_log(digest, beside.runtime, {}))
        await beside.open()
        seconds = time.monotonic() - started
        self.metrics.loaded(
            model=config.model_name, digest=digest or "unknown", runtime=beside.runtime, seconds=seconds
        )
        logs.event("info", "ready", model=config.model_name, version=config.model_version, digest=digest,
                   engine=config.proxy_url, seconds=round(seconds, 3))  # fmt: skip

    def serve(self, loaded: Loaded) -> None:
        """Takes a warm model into service: ready from now on."""
        config, loop, engine = self._config, asyncio.get_running_loop(), loaded.engine
        runner = ThreadRunner(
            loop, engine.instances, cores=cores() if config.pin_threads else (), stuck_after=config.stuck_after
        )
        statistics = Statistics()
        max_size = min(config.batch_max_size, config.queue_max_length)

        def observe(rows: int, seconds: float) -> None:
            self.metrics.batch(rows, seconds)
            statistics.batch(rows, seconds)

        self._drift = drift = open_monitor(config, loaded.signature, loaded.about)
        if drift is not None:
            self.metrics.collect_drift = drift.collect
        batcher = Batcher(
            self._extras.engine(engine.run if drift is None else drift.watching(engine.run)),
            runner,
            LoopScheduler(loop),
            batched=loaded.signature.batched,
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
        self._runner, self._engine = runner, engine
        self._site.set_common_headers(self._headers(loaded.digest))
        self.metrics.queue_limit = config.queue_max_length
        self.metrics.queue_depth = lambda: batcher.waiting_rows
        self.metrics.collect_engine = engine.collect
        self.metrics.loaded(
            model=config.model_name, digest=loaded.digest, runtime=engine.runtime, seconds=loaded.seconds
        )
        codec = InferCodec(config.model_name, config.model_version, loaded.signature, loaded.about)
        self._extras.loaded(loaded.signature, loaded.digest)
        self._extras.tracing(loaded.digest)
        self._extras.jobs()
        if config.prediction_log != predictionlog.OFF:
            self._open_prediction_log(loaded.digest, loaded.engine.runtime, loaded.about.columns)
        self.state.alive = lambda: runner.alive() and engine.alive()
        self.state.engine_ready = engine.ready
        if isinstance(engine, RawEngine):
            self._raw = Predictions(engine, self.state, self.metrics, config.queue_max_length, max_size)
            self.state.raw = self._raw.routes(config.model_name, config.model_version)
        signature, about = loaded.signature, loaded.about
        fronts: dict[str, Front] = {
            "infer": codec,
            "v1": PredictV1(signature, about),
            "predict": Predict(signature, about),
        }
        if self._grpc is not None:
            self._grpc.loaded(loaded.digest)
            fronts["grpc"] = self._grpc.front(codec, signature, about)
        self.state.model = Model(
            codec,
            batcher,
            engine.platform,
            fronts,
            documents(
                config.model_name, config.model_version, engine, signature, about, max_size, self._extras.describe
            ),
            statistics,
            _STRING_WEIGHT if any(spec.datatype == "BYTES" for spec in signature.inputs) else 1,
        )
        gc.collect()
        gc.freeze()
        # Requests leave no cycles behind: looking for some every 700 objects costs 3 % of the process.
        gc.set_threshold(20_000, 20, 50)
        logs.event(
            "info", "ready", model=config.model_name, version=config.model_version, digest=loaded.digest,
            batched=loaded.signature.batched, seconds=round(loaded.seconds, 3),
        )  # fmt: skip

    def _open_prediction_log(
        self, digest: str, runtime: str, columns: Mapping[str, Sequence[str]]
    ) -> predictionlog.PredictionLog:
        config = self._config
        self.state.predictions = log = predictionlog.PredictionLog(
            open_sink(config),
            Identity(
                model=config.model_name,
                version=config.model_version,
                digest=digest,
                preprocessing=predictionlog.preprocessing_hash(config.model_dir),
                runtime=f"serinus-runtime-{__version__} {runtime}",
                revision=config.revision,
                namespace=config.namespace,
                deployment=config.deployment,
            ),
            sample=config.prediction_log_sample,
            payloads=config.prediction_log_payloads,
            redact=config.prediction_log_redact,
            columns=columns,
        )
        self.metrics.predictions = lambda: {"written": log.written, "dropped": log.lost}
        return log

    async def drain(self, delay: float) -> None:
        """Not ready at once; serves for `delay` seconds more, then takes nothing new and finishes what it has."""
        self.state.draining = True
        self._site.closing = True
        grpc = self._grpc
        if grpc is not None:
            grpc.go_away()
        logs.event("info", "draining", delay=delay)
        await asyncio.sleep(delay)
        await self._stop_accepting(0, lambda: connection(self._site))
        if grpc is not None:
            await self._stop_accepting(_GRPC, grpc.protocol)
            grpc.go_away()
        await asyncio.sleep(_LAST_REQUESTS_SECONDS)
        self.state.refusing = True
        self._close_idle()
        until = time.monotonic() + self._config.drain_timeout
        while self._connections() and time.monotonic() < until:
            await asyncio.sleep(0.01)
            self._close_idle()
        logs.event("info", "drained", unfinished=self._connections())

    def _connections(self) -> int:
        return (
            self._extras.unfinished
            + len(self._site.connections)
            + (self._grpc.connections if self._grpc is not None else 0)
        )

    def _close_idle(self) -> None:
        self._site.close_idle()
        if self._grpc is not None:
            self._grpc.close_idle()

    async def _stop_accepting(self, number: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        server, queued = self._servers[number], self._sockets[number]
        refuse_new(queued)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        server.close()
        loop = asyncio.get_running_loop()
        # Clients that the kernel has let in count as accepted: without this, closing the socket would reset them.
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = queued.accept()
                await loop.connect_accepted_socket(protocol, accepted)
        queued.close()

    async def stop(self) -> None:
        """Closes everything, answered or not."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server in self._servers:
            server.close()
        for listener in self._sockets:
            listener.close()
        for site in (self._site, self._metrics_site):
            for each in list(site.connections):
                each.abort()
        if self._grpc is not None:
            self._grpc.abort()
        if self._beside is not None:
            await self._beside.close()
        if self.state.predictions is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.state.predictions.close)
        await self._extras.close()
        if self._drift is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._drift.close)
        if self._raw is not None:
            self._raw.close()
        if self._runner is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._runner.close)
        if self._engine is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._engine.close)
        await asyncio.sleep(0)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


async def run(config: Config) -> int:
    """Serves until SIGTERM (with the drain delay) or SIGINT (without); a second signal ends it at once.

    Returns the exit code. Raises FailureError.
    """
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = Server(config)
    wait = asyncio.create_task(signals.get())
    try:
        await server.start()
        load = asyncio.create_task(server.load())
        await asyncio.wait({load, wait}, return_when=asyncio.FIRST_COMPLETED)
        if not load.done():
            # The thread that loads cannot be interrupted, and nobody is being served.
            logs.event("info", "stopped while loading")
            os._exit(0)
        load.result()
        first = await wait
        again = asyncio.create_task(signals.get())
        drain = asyncio.create_task(server.drain(config.drain_delay if first is signal.SIGTERM else 0.0))
        await asyncio.wait({drain, again}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            logs.event("warning", "a second signal: leaving now")
        again.cancel()
        drain.cancel()
    finally:
        wait.cancel()
        await server.stop()
    return 0
