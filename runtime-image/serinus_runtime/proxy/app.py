"""The port of a server whose engine runs beside it: health is ours, everything else is the engine's."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import msgspec

from serinus_runtime import logs
from serinus_runtime.http import Exchange
from serinus_runtime.jobs.http import PATH as JOBS
from serinus_runtime.jobs.http import prefers_async
from serinus_runtime.proxy.desk import Desk
from serinus_runtime.proxy.guarded import changes_models
from serinus_runtime.proxy.jobs import JobEnd
from serinus_runtime.proxy.passage import Passage

_UNCOUNTED = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_REFUSALS = {413: "too_large", 429: "queue_full"}
_LIVE, _READY = b"/v2/health/live", b"/v2/health/ready"


class ProxyApp:
    """Passes requests on. All but GET, HEAD and OPTIONS count as inference requests, and what the settings name."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        desk.state.run_job = self._run_job

    def handle(self, exchange: Exchange) -> None:
        """Answers one request, now or later."""
        path = exchange.path
        if b"%" in path:
            path = unquote_to_bytes(path)
        try:
            if path in (_LIVE, _READY) and exchange.method in (b"GET", b"HEAD"):
                self._health(exchange, "live" if path == _LIVE else "ready")
            elif (jobs := self._desk.state.jobs) is not None and path.startswith(JOBS):
                jobs.handle(exchange, path)
            elif (
                jobs is not None
                and exchange.method == b"POST"
                and prefers_async(exchange.headers)
                # A key that is good for jobs is not good for these.
                and not changes_models(path)
            ):
                if self._desk.serving:
                    jobs.submit(exchange, exchange.target)
                else:
                    exchange.respond(503, b'{"error":"the engine is not ready yet"}', headers=b"retry-after: 1\r\n")
            elif exchange.method == b"TRACE":
                exchange.respond(405, b'{"error":"TRACE is not passed on"}')
            else:
                Passage(self._desk, exchange, path, counted=self._counted(exchange.method, path)).start()
        except Exception as error:
            logs.event("error", "a request failed", path=path.decode("latin-1"), error=repr(error))
            exchange.respond(500, b'{"error":"internal error"}')

    def _run_job(self, exchange: Exchange) -> None:
        """Runs a job, whose answer is kept whole."""
        exchange.connection = JobEnd(self._desk.settings.job_bytes)
        passage = Passage(self._desk, exchange, exchange.path, counted=True)
        passage.admitted = True
        passage.start()

    def refused(self, target: bytes, status: int) -> None:
        """Counts what the connection refused by itself."""
        if target and target.partition(b"?")[0] not in (_LIVE, _READY):
            self._desk.metrics.rejected[_REFUSALS.get(status, "invalid")] += 1
            self._desk.metrics.answered(status, 0.0)

    def _counted(self, method: bytes, path: bytes) -> bool:
        if method not in _UNCOUNTED:
            return True
        pattern = self._desk.settings.counted
        return pattern is not None and pattern.fullmatch(path) is not None

    def _health(self, exchange: Exchange, what: str) -> None:
        state = self._desk.state
        good = state.alive() if what == "live" else state.ready
        exchange.respond(200 if good else 503, msgspec.json.encode({what: good}))
