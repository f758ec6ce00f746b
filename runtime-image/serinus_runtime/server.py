"""A server process from start to end: ports, verify, load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from serinus_runtime import logs
from serinus_runtime.about import About
from serinus_runtime.app import InferenceApp, MetricsApp
from serinus_runtime.config import Config
from serinus_runtime.controlling import open_control
from serinus_runtime.digest import verify
from serinus_runtime.extras import Extras
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.growth import MOST
from serinus_runtime.http import Application, Limits, Site, connection
from serinus_runtime.http.site import header_line
from serinus_runtime.listening import refuse_new
from serinus_runtime.loading import Loaded, load_model
from serinus_runtime.metrics import Metrics
from serinus_runtime.reloading import Reloader, Reloads
from serinus_runtime.serving import Serving
from serinus_runtime.shadow.front import TapFront
from serinus_runtime.shadow.opening import open_tap
from serinus_runtime.sinks.opening import open_log
from serinus_runtime.state import State

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

__all__ = ["PROXY", "Loaded", "Server", "load_model", "run"]


class Server:
    """One process' ports and model. `start`, then `load`, then `drain` and `stop`."""

    def __init__(self, config: Config, settings: Callable[[], Config] | None = None) -> None:
        """`settings`: what is set now, for a model that is loaded anew; without, `config`."""
        self._config = config
        self.state = State()
        self.metrics = Metrics(
            namespace=config.namespace,
            deployment=config.deployment,
            revision=config.revision,
            model_version=config.model_version,
            slo_latency=config.slo_latency,
            max_batch=config.batch_max_size or MOST,
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
        self._serving: Serving | None = None
        self._tap: TapFront | None = None
        """Of the engine beside us; a model of our own has its own."""
        self._reloader = Reloader(self)
        self.metrics.collect_more.append(self._reloader.collect)
        self.state.control = open_control(
            config, settings or (lambda: config), self._extras.door, self.state, self._reloader, _settle_anew
        )
        self._grpc: Endpoint | None = None
        if config.grpc_port is not None and (self._beside is None or self._beside.grpc is not None):
            from serinus_runtime.grpc.endpoint import Endpoint

            self._grpc = Endpoint(
                config, self.state, self.metrics, self._beside.grpc if self._beside is not None else None
            )
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
            if self._tap is not None:
                self._tap.sweep(now)
            if self._serving is not None:
                self._serving.sweep(now)

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
        if self._grpc is not None:
            self._grpc.loaded(digest)
        if (log := open_log(config, digest, beside.runtime, {})) is not None:
            self.state.predictions = log
            self.metrics.predictions = lambda: {"written": log.written, "dropped": log.lost}
            beside.record(log)
        self._tap = open_tap(config, self.state, self.metrics, None, About())
        self.state.tracing = tracing = self._extras.tracing(config, digest)
        if tracing is not None:
            self.metrics.collect_more.append(tracing.collect)
        self._extras.jobs()
        await beside.open()
        seconds = time.monotonic() - started
        self.metrics.loaded(
            model=config.model_name, digest=digest or "unknown", runtime=beside.runtime, seconds=seconds
        )
        logs.event("info", "ready", model=config.model_name, version=config.model_version, digest=digest,
                   engine=config.proxy_url, seconds=round(seconds, 3))  # fmt: skip

    def serve(self, loaded: Loaded) -> None:
        """Takes a warm model into service: ready from now on. Raises FailureError."""
        serving = self.prepare(self._config, loaded)
        self.announce(serving)
        self.enter(serving)
        self._extras.jobs()
        _settle()
        logs.event(
            "info", "ready", model=self._config.model_name, version=self._config.model_version, digest=loaded.digest,
            batched=loaded.signature.batched, proved=not loaded.unproved, seconds=round(loaded.seconds, 3),
        )  # fmt: skip

    def prepare(self, config: Config, loaded: Loaded) -> Serving:
        """Everything around a warm model; nobody is served by it yet. Raises FailureError."""
        return Serving(config, loaded, self.state, self.metrics, self._extras, self._grpc)

    def announce(self, serving: Serving) -> None:
        """New requests are for this model."""
        config = serving.config
        if config.model_version != self._config.model_version:
            self._site.application = InferenceApp(config.model_name, config.model_version, self.state, self.metrics)
        if self._grpc is not None:
            self._grpc.announce(config)
        self._config = config
        serving.announce()

    def enter(self, serving: Serving) -> None:
        """Answers, metrics and log are about this model."""
        self._serving = serving
        self._site.set_common_headers(self._headers(serving.loaded.digest))
        if self._grpc is not None:
            self._grpc.loaded(serving.loaded.digest)
        self.metrics.renamed(serving.config.model_version)
        serving.enter()

    @property
    def serving(self) -> Serving | None:
        """The model that is in service; None before it is loaded, and where the engine is beside us."""
        return self._serving

    async def reload(self, config: Config) -> bool:
        """Puts the model of `config` into the place of the one that is served, if it can be loaded; see `Reloader`."""
        done = await self._reloader.reload(config)
        if done:
            _settle_anew()
        return done

    def vacate(self, old: Serving) -> None:
        """There is no model any more after `old`, which has left."""
        self._serving = None
        self._site.set_common_headers(self._headers(""))
        if self._grpc is not None:
            self._grpc.loaded("")
        old.vacate()

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
        if self.state.control is not None:
            self.state.control.leave()
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
            for ending in (self.state.predictions, self.state.tracing):
                if ending is not None:
                    await asyncio.get_running_loop().run_in_executor(None, ending.close)
        await self._reloader.close()
        await self._extras.close()
        if self._tap is not None:
            self._tap.close()
        if self._serving is not None:
            await self._serving.close()
        await asyncio.sleep(0)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _settle_anew() -> None:
    """Another model, or none: what there was before may go."""
    gc.unfreeze()
    _settle()


def _settle() -> None:
    """Tells the collector that what there is now will stay."""
    gc.collect()
    gc.freeze()
    # Requests leave no cycles behind: looking for some every 700 objects costs 3 % of the process.
    gc.set_threshold(20_000, 20, 50)


async def run(config: Config, settings: Callable[[], Config] | None = None) -> int:
    """Serves until SIGTERM (with the drain delay) or SIGINT (without); a second signal ends it at once.

    SIGHUP loads the model anew, with what `settings` then gives. Returns the exit code. Raises FailureError.
    """
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    server = Server(config, settings)
    reloads = Reloads(server, settings or (lambda: config))
    loop.add_signal_handler(signal.SIGHUP, reloads.ask)
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
    if reloads.under_way or (server.state.control is not None and server.state.control.under_way):
        # The thread that loads cannot be interrupted, and everybody has been served.
        os._exit(0)
    return 0
