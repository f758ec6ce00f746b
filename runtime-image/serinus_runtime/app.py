"""The routes of both ports: what a request means."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import msgspec

from serinus_runtime import __version__, documents, logs
from serinus_runtime.control import GUARDED
from serinus_runtime.control import PATH as REPOSITORY
from serinus_runtime.http import Exchange
from serinus_runtime.inference import Inference
from serinus_runtime.ingress.priorities import JOB
from serinus_runtime.jobs.http import PATH as JOBS
from serinus_runtime.jobs.http import JobsFront, prefers_async
from serinus_runtime.metrics import CONTENT_TYPE, Metrics
from serinus_runtime.state import State

_REFUSALS = {413: "too_large", 429: "queue_full"}
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
Handler = Callable[[Exchange], None]


class InferenceApp:
    """The Open Inference Protocol for one model."""

    def __init__(self, name: str, version: str, state: State, metrics: Metrics) -> None:
        self._name = name
        self._version = version
        self._state = state
        self._metrics = metrics
        state.run_job = self._run_job
        model = f"/v2/models/{name}".encode()
        versioned = model + f"/versions/{version}".encode()
        old = f"/v1/models/{name}".encode()
        old_version = old + f"/versions/{version}".encode()
        self._ask_paths = {
            model + b"/infer": "infer",
            versioned + b"/infer": "infer",
            old + b":predict": "v1",
            old_version + b":predict": "v1",
            b"/predict": "predict",
        }
        self._async_paths = {model + b"/async": model + b"/infer", versioned + b"/async": versioned + b"/infer"}
        repository = f"/v2/repository/models/{name}".encode()
        self._posts: dict[bytes, Handler] = {
            b"/v2/repository/index": self._index,
            repository + b"/load": self._guarded,
            repository + b"/unload": self._guarded,
        }
        self._gets: dict[bytes, Handler] = {
            b"/v2/models/stats": self._stats,
            b"/v2": self._server_metadata,
            b"/v2/": self._server_metadata,
            b"/v2/health/live": self._live,
            b"/v2/health/ready": self._ready,
            model: self._metadata,
            versioned: self._metadata,
            model + b"/ready": self._model_ready,
            versioned + b"/ready": self._model_ready,
            model + b"/stats": self._stats,
            versioned + b"/stats": self._stats,
            b"/v1/models": self._old_models,
            old: self._old_status,
            old_version: self._old_status,
            model + b"/stream": self._stream,
            versioned + b"/stream": self._stream,
            **dict.fromkeys(documents.paths(name, version), self._document),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answers one request. Whatever goes wrong is an answer, not an exception."""
        path = exchange.path
        ask = self._ask_paths.get(path)
        if ask is None and b"%" in path:
            path = unquote_to_bytes(path)
            ask = self._ask_paths.get(path)
        try:
            if ask is not None:
                if exchange.method == b"POST":
                    if self._state.jobs is not None and prefers_async(exchange.headers):
                        self._submit(self._state.jobs, exchange, path)
                        return
                    model = self._state.model
                    front = model.fronts[ask] if model is not None else None
                    Inference(exchange, self._state, self._metrics, front).begin()
                else:
                    _error(exchange, 405, "POST an inference request here", b"allow: POST\r\n")
            elif (jobs := self._state.jobs) is not None and path.startswith(JOBS):
                jobs.handle(exchange, path)
            elif jobs is not None and (target := self._async_paths.get(path)) is not None:
                if exchange.method == b"POST":
                    self._submit(jobs, exchange, target)
                else:
                    _error(exchange, 405, "POST an inference request here", b"allow: POST\r\n")
            elif (
                (control := self._state.control) is not None
                and path.startswith(REPOSITORY)
                and control.handle(exchange, path)
            ):
                # It asks for a key of its own.
                pass
            elif (ingress := self._state.ingress) is not None and (refusal := ingress.closed_to(exchange, path)):
                _error(exchange, refusal.status, refusal.message, refusal.headers)
            elif (handler := self._gets.get(path)) is not None:
                if exchange.method in (b"GET", b"HEAD"):
                    handler(exchange)
                else:
                    _error(exchange, 405, "only GET and HEAD are understood here", b"allow: GET, HEAD\r\n")
            elif (handler := self._posts.get(path)) is not None:
                if exchange.method == b"POST":
                    handler(exchange)
                else:
                    _error(exchange, 405, "only POST is understood here", b"allow: POST\r\n")
            elif (handler := self._state.raw.get(path)) is not None:
                handler(exchange)
            else:
                self._not_found(exchange, path)
        except Exception as error:
            logs.event("error", "a request failed", path=path.decode("latin-1"), error=repr(error))
            _error(exchange, 500, "internal error")

    def _run_job(self, exchange: Exchange) -> None:
        """Runs a job, whose target is one of the paths of inference."""
        model = self._state.model
        front = model.fronts[self._ask_paths[exchange.path]] if model is not None else None
        inference = Inference(exchange, self._state, self._metrics, front)
        inference.admitted = True
        inference.priority = JOB
        inference.begin()

    def _submit(self, jobs: JobsFront, exchange: Exchange, target: bytes) -> None:
        if self._state.model is None:
            self._absent(exchange)
        else:
            jobs.submit(exchange, target)

    def refused(self, target: bytes, status: int) -> None:
        """Counts what the connection refused, when it was an inference request."""
        path = target.partition(b"?")[0]
        if path in self._ask_paths or path in self._state.raw:
            self._metrics.rejected[_REFUSALS.get(status, "invalid")] += 1
            self._metrics.answered(status, 0.0)

    def _server_metadata(self, exchange: Exchange) -> None:
        _json(exchange, 200, {"name": "serinus-runtime", "version": __version__, "extensions": EXTENSIONS})

    def _live(self, exchange: Exchange) -> None:
        live = self._state.alive()
        _json(exchange, 200 if live else 503, {"live": live})

    def _ready(self, exchange: Exchange) -> None:
        ready = self._state.ready
        _json(exchange, 200 if ready else 503, {"ready": ready})

    def _model_ready(self, exchange: Exchange) -> None:
        ready, model = self._state.ready, self._state.model
        told: dict[str, object] = {"name": self._name, "ready": ready}
        if model is not None and model.unproved:
            told["unproved"] = model.unproved
        _json(exchange, 200 if ready else 503, told)

    def _metadata(self, exchange: Exchange) -> None:
        model = self._state.model
        if model is None:
            self._absent(exchange)
        else:
            exchange.respond(200, model.codec.metadata(self._name, self._version, model.platform))

    def _document(self, exchange: Exchange) -> None:
        model = self._state.model
        if model is None:
            self._absent(exchange)
        else:
            path = exchange.path
            content_type, body = model.documents[unquote_to_bytes(path) if b"%" in path else path]
            exchange.respond(200, body, content_type)

    def _stream(self, exchange: Exchange) -> None:
        from serinus_runtime.conversation import converse

        converse(exchange, self.handle, exchange.path.removesuffix(b"stream") + b"infer")

    def _stats(self, exchange: Exchange) -> None:
        model = self._state.model
        if model is None:
            self._absent(exchange)
        else:
            entry = model.statistics.describe(self._name, self._version, self._metrics)
            _json(exchange, 200, {"model_stats": [entry]})

    def _index(self, exchange: Exchange) -> None:
        ready = self._state.ready
        wanted: object = None
        if exchange.body.strip():
            try:
                told = msgspec.json.decode(exchange.body, type=dict[str, msgspec.Raw])
                wanted = msgspec.json.decode(told["ready"], type=bool) if "ready" in told else None
            except (ValueError, RecursionError) as error:
                _error(exchange, 400, f'the body must be empty or such as {{"ready": true}}: {error}')
                return
        state, reason = self._state.standing
        entry = {"name": self._name, "version": self._version, "state": state, "reason": reason}
        _json(exchange, 200, [entry] if ready or not wanted else [])

    def _absent(self, exchange: Exchange) -> None:
        refusal = self._state.away.refusal
        _error(exchange, refusal.status, refusal.message, refusal.headers)

    def _guarded(self, exchange: Exchange) -> None:
        _error(exchange, 403, GUARDED)

    def _old_models(self, exchange: Exchange) -> None:
        _json(exchange, 200, {"models": [self._name]})

    def _old_status(self, exchange: Exchange) -> None:
        """What both TF Serving's and KServe's clients look for."""
        ready = self._state.ready
        state = "AVAILABLE" if ready else "UNLOADING" if self._state.draining else self._state.away.old_state
        status = {"version": self._version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
        body = {"name": self._name, "ready": ready, "model_version_status": [status]}
        _json(exchange, 200 if ready else 503, body)

    def _not_found(self, exchange: Exchange, path: bytes) -> None:
        parts = path.decode("utf-8", "replace").split("/")
        if parts[1:3] == ["v2", "repository"] and parts[-1] in ("load", "unload"):
            _error(exchange, 403, GUARDED)
            return
        if parts[1:2] == ["v1"] and len(parts) > 3 and parts[3].partition(":")[0] != self._name:
            text = f"model {parts[3].partition(':')[0][:200]!r} is not served here; this server has {self._name!r}"
        elif parts[1:3] == ["v2", "models"] and len(parts) > 3 and parts[3] != self._name:
            text = f"model {parts[3][:200]!r} is not served here; this server has {self._name!r}"
        elif parts[1:3] == ["v2", "models"] and parts[4:5] == ["versions"] and parts[5:6] != [self._version]:
            text = f"version {''.join(parts[5:6])[:200]!r} is not served here; this server has {self._version!r}"
        else:
            text = "no such path; see /v2"
        _error(exchange, 404, text)


class MetricsApp:
    """The second port: what Prometheus and simple probes ask."""

    def __init__(self, state: State, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics

    def handle(self, exchange: Exchange) -> None:
        """Answers one request."""
        if exchange.method not in (b"GET", b"HEAD"):
            _error(exchange, 405, "only GET and HEAD are understood here", b"allow: GET, HEAD\r\n")
        elif exchange.path == b"/tap" and (tapped := self._state.tapped) is not None:
            # It has a door of its own: a joiner has no key.
            tapped(exchange)
        elif (ingress := self._state.ingress) is not None and (refusal := ingress.closed_to(exchange, exchange.path)):
            _error(exchange, refusal.status, refusal.message, refusal.headers)
        elif exchange.path == b"/metrics":
            exchange.respond(200, self._metrics.render(), CONTENT_TYPE)
        elif exchange.path == b"/healthz":
            live = self._state.alive()
            _json(exchange, 200 if live else 503, {"live": live})
        elif exchange.path == b"/readyz":
            ready = self._state.ready
            _json(exchange, 200 if ready else 503, {"ready": ready})
        else:
            _error(exchange, 404, "no such path; there are /metrics, /healthz and /readyz")

    def refused(self, target: bytes, status: int) -> None:
        """Nothing is counted on this port."""


def _json(exchange: Exchange, status: int, body: object) -> None:
    exchange.respond(status, msgspec.json.encode(body))


def _error(exchange: Exchange, status: int, message: str, headers: bytes = b"") -> None:
    exchange.respond(status, msgspec.json.encode({"error": message}), headers=headers)
