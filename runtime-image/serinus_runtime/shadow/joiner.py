"""The joiner: reads the taps of both revisions, joins by request id, compares, and tells.

It listens on the metrics port: `/metrics`, `/report`, `/healthz` and `/readyz`. All state is in memory: a joiner that
starts anew counts anew, and whoever reads its counters sees a reset as Prometheus does.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from serinus_runtime import logs
from serinus_runtime.http import Exchange, Limits, Site, connection
from serinus_runtime.metrics import CONTENT_TYPE
from serinus_runtime.shadow.pairing import Pairing, Side
from serinus_runtime.shadow.reading import Readers
from serinus_runtime.shadow.records import ALL, Page
from serinus_runtime.shadow.tally import Tally
from serinus_runtime.shadow.telemetry import Telemetry
from serinus_runtime.shadow.understanding import understood

_EXPIRE_SECONDS = 1.0
_FORGET_SECONDS = 30.0
_INPUTS_PER_SECOND = 25.0
"""Live requests whose inputs are asked for: telling them costs a pod more than everything else."""


class Settings(msgspec.Struct, frozen=True):
    """What a joiner is told. Durations in seconds."""

    live: str
    """Revision."""
    candidate: str
    targets: tuple[tuple[str, int], ...]
    """Names and ports of the pods' taps."""
    namespace: str = ""
    deployment: str = ""
    tolerance: float | None = None
    samples: int = 0
    redact: tuple[str, ...] = ()
    window: float = 30.0
    host: str = ""
    port: int = 8082


class Rate:
    """Things per second, over about the last five."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._since: float | None = None
        self._count = 0

    def count(self, things: int, now: float) -> None:
        """Counts them."""
        if self._since is None:
            self._since = now
        self._count += things
        if now - self._since >= 1.0:
            fresh = self._count / (now - self._since)
            self.per_second = fresh if not self.per_second else 0.8 * self.per_second + 0.2 * fresh
            self._since, self._count = now, 0


class Joiner:
    """Takes pages in. `now` is seconds of time.monotonic."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.pairing = Pairing(settings.window)
        self.tally = Tally(settings.tolerance, settings.samples)
        self._sides = {settings.live: Side.LIVE, settings.candidate: Side.CANDIDATE}
        self._seen: dict[str, tuple[Side, float]] = {}
        self._rate = Rate()
        self._always = f"&candidate={settings.candidate}"
        if settings.redact:
            self._always += "&redact=" + ",".join(map(quote, settings.redact))

    def asking(self) -> str:
        """What pods are asked for: inputs and samples only of requests that would still be kept."""
        samples = f"&samples={self.tally.samples_below}" if self._settings.samples else ""
        rate = self._rate.per_second
        enough = round(ALL * min(1.0, _INPUTS_PER_SECOND / rate)) if rate else ALL // 64
        return f"&inputs={min(self.tally.inputs_below, enough)}{samples}{self._always}"

    def take(self, pod: str, page: Page, now: float | None = None) -> bool:
        """Takes the records of a page; false when its pod belongs to neither revision."""
        side = self._sides.get(page.revision)
        if side is None:
            return False
        now = time.monotonic() if now is None else now
        self._seen[pod] = (side, now)
        if page.lost:
            self.pairing.lost(page.lost)
        if page.columns:
            self.tally.columns(side.value, page.columns)
        if side is Side.LIVE:
            self._rate.count(len(page.records), now)
        for told in page.records:
            pair = self.pairing.add(side, understood(told, page.scoring), now)
            if pair is not None:
                self.tally.add(*pair)
        return True

    def pods(self) -> Mapping[str, int]:
        """Pods that told something lately, by side."""
        oldest = time.monotonic() - _FORGET_SECONDS
        self._seen = {pod: known for pod, known in self._seen.items() if known[1] >= oldest}
        sides = [side for side, _ in self._seen.values()]
        return {side.value: sides.count(side) for side in Side}


class JoinerApp:
    """The joiner's port."""

    def __init__(self, joiner: Joiner, telemetry: Telemetry) -> None:
        self._joiner = joiner
        self._telemetry = telemetry

    def handle(self, exchange: Exchange) -> None:
        """Answers one request."""
        if exchange.method not in (b"GET", b"HEAD"):
            _say(exchange, 405, {"error": "only GET and HEAD are understood here"})
        elif exchange.path == b"/metrics":
            exchange.respond(200, self._telemetry.render(), CONTENT_TYPE)
        elif exchange.path == b"/report":
            exchange.respond(200, self._telemetry.report())
        elif exchange.path in (b"/healthz", b"/readyz"):
            _say(exchange, 200, {"pods": self._joiner.pods()})
        else:
            _say(exchange, 404, {"error": "no such path; there are /metrics, /report, /healthz and /readyz"})

    def refused(self, target: bytes, status: int) -> None:
        """Nothing is counted here."""


def _say(exchange: Exchange, status: int, body: object) -> None:
    exchange.respond(status, msgspec.json.encode(body))


async def run(settings: Settings) -> int:
    """Joins until SIGTERM or SIGINT; the exit code. Raises OSError when the port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    joiner = Joiner(settings)
    labels = {
        "model_namespace": settings.namespace, "model_deployment": settings.deployment, "revision": settings.candidate,
    }  # fmt: skip
    telemetry = Telemetry(labels, settings.live, joiner.tally, joiner.pairing, joiner.pods)
    site = Site(JoinerApp(joiner, telemetry), Limits(connections=256, body_bytes=0))
    server = await loop.create_server(lambda: connection(site), settings.host or None, settings.port)
    port = server.sockets[0].getsockname()[1]
    readers = Readers(settings.targets, joiner.asking, joiner.take)
    reading = loop.create_task(readers.run())
    # Records hold no cycles.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    logs.event("info", "joining", metrics_port=port, live=settings.live, candidate=settings.candidate)
    try:
        while not stop.is_set():
            joiner.pairing.expire(time.monotonic())
            site.sweep(time.monotonic())
            waited = [loop.create_task(stop.wait()), reading]
            await asyncio.wait(waited, timeout=_EXPIRE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            waited[0].cancel()
            if reading.done():
                reading.result()
    finally:
        reading.cancel()
        server.close()
        for each in list(site.connections):
            each.abort()
    return 0
