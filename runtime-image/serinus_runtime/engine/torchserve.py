"""TorchServe as a supervised child, on sockets that nobody else can reach.

Upstream is archived and gets no patches: use it for archives that need it, and ONNX or the torch engine for the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from serinus_runtime import logs
from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import declared, mar
from serinus_runtime.engine import torchserve_settings as settings
from serinus_runtime.engine.base import Engine, EngineError, EngineUnavailableError, Signature
from serinus_runtime.engine.scratch import Scratch
from serinus_runtime.engine.supervisor import Supervisor, spawn
from serinus_runtime.engine.torchserve_client import Client, Reply, handler_failed, refuse
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.torchworker import bodies

_LOOK_SECONDS = 2.0
_LOOK_TIMEOUT = 5.0
_LOOKS_IN_VAIN = 3
_STOP_SECONDS = 5.0
_REMEMBERED = 20
_LINE = re.compile(r"(TRACE|DEBUG|INFO|WARN|ERROR|FATAL) (\S+) (.*)", re.DOTALL)
_LEVELS = {"WARN": "warning", "ERROR": "error", "FATAL": "error"}
_COUNTERS = {
    "ts_inference_requests": ("serinus_torchserve_requests", "Requests that TorchServe has taken", 1.0),
    "ts_queue_latency_microseconds": ("serinus_torchserve_queue_seconds", "Time in TorchServe's own queue", 1e-6),
    "ts_inference_latency_microseconds": ("serinus_torchserve_inference_seconds", "Time of its predictions", 1e-6),
}
_CLASSES = {"Requests2XX": "2xx", "Requests4XX": "4xx", "Requests5XX": "5xx"}


class TorchServeEngine(Engine):
    """One model in one TorchServe with one worker."""

    platform = "torchserve"
    backend = "torchserve"
    inline = False

    def __init__(
        self, config: Config, signature: Signature, style: str, places: settings.Places, scratch: Scratch
    ) -> None:
        self._config = config
        self._signature = signature
        self._style = style
        self._places = places
        self._scratch = scratch
        self._path = f"/predictions/{config.model_name}"
        self._client: Client | None = None
        self._management: Client | None = None
        self._scraper: Client | None = None
        self._healthy = False
        self._worker_died = threading.Event()
        self._last_lines: deque[str] = deque(maxlen=_REMEMBERED)
        self._counts: dict[str, float] = {}
        self._recent: deque[bool] = deque([True], maxlen=50)
        """Whether raw predictions went well; the one at the start stands for warm-up."""
        self._supervisor = Supervisor("TorchServe", self._start, self._prepare, patience=_STOP_SECONDS)
        self._closing = threading.Event()
        self._looker = threading.Thread(target=self._look, name="serinus-torchserve-health", daemon=True)

    @property
    def signature(self) -> Signature:
        """As declared in model.json."""
        return self._signature

    @property
    def runtime(self) -> str:
        """Always the version that this engine was written for."""
        return "torchserve-0.12.0"

    @property
    def details(self) -> Mapping[str, str]:
        """How rows become requests, and TorchServe's own batching."""
        size, delay = settings.batching(self._config, self._style)
        return {"body": self._style, "batchSize": str(size), "maxBatchDelay": f"{delay}ms"}

    @property
    def pid(self) -> int | None:
        """Java's process id while there is one; it leads the process group."""
        return self._supervisor.pid

    def open(self) -> None:
        """Starts TorchServe and waits for its worker. Raises FailureError."""
        try:
            self._supervisor.start()
        except FailureError:
            raise
        except (EngineError, OSError, ValueError, KeyError) as error:
            raise FailureError(Reason.MODEL_LOAD_FAILED, f"TorchServe cannot be started: {error}") from error
        self._looker.start()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for one batch. Raises EngineError and its kinds."""
        client = self._client
        if client is None or not self._supervisor.up:
            raise EngineUnavailableError("TorchServe is being started: try again")
        rows = len(next(iter(inputs.values())))
        ordered = {spec.name: inputs[spec.name] for spec in self._signature.inputs}
        sent = bodies.bodies(self._style, ordered, rows)
        if self._style == "binary":
            replies = client.post(self._path, sent, "application/octet-stream")
        else:
            replies = client.post(self._path, [msgspec.json.encode(body) for body in sent], "application/json")
        for reply in replies:
            if reply.status != 200:
                raise refuse(reply)
        # Raw numbers may look like JSON.
        answers = [reply.body if self._style == "binary" else _decoded(reply.body) for reply in replies]
        specs = [(spec.name, spec.datatype, spec.shape) for spec in self._signature.outputs]
        every = [spec.name for spec in self._signature.outputs]
        try:
            arrays = bodies.arrays(self._style, answers, specs, rows)
        except bodies.AnswerError as error:
            raise EngineError(str(error)) from None
        checked = dict(zip(every, declared.check(arrays, every, self._signature), strict=True))
        return [checked[name] for name in outputs]

    def predict_raw(self, body: bytes, content_type: str) -> Reply:
        """TorchServe's own answer to a body of its own kind; a handler that fails on it is 400.

        It is 500 while no such request has gone well of late: then it is the handler. Raises as `run` does.
        """
        client = self._client
        if client is None or not self._supervisor.up:
            raise EngineUnavailableError("TorchServe is being started: try again")
        (reply,) = client.post(self._path, [body], content_type)
        if reply.status == 200:
            self._recent.append(True)
            return reply
        if handler_failed(reply):
            self._recent.append(False)
            error = refuse(reply)
            status = 400 if any(self._recent) else 500
            return Reply(status, "application/json", json.dumps({"error": str(error)}).encode())
        if reply.status >= 500:
            raise refuse(reply)
        return reply

    def alive(self) -> bool:
        """False when nobody looks after TorchServe any more."""
        return self._supervisor.alive()

    def ready(self) -> bool:
        """False while TorchServe, or its worker, is being started."""
        return self._supervisor.up and self._healthy

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """TorchServe's own counters under our names; two seconds old at most."""
        yield from self._supervisor.collect(names, values)
        counts = dict(self._counts)
        for name, (ours, text, _) in _COUNTERS.items():
            family = CounterMetricFamily(ours, text, labels=names)
            family.add_metric(values, counts.get(name, 0.0))
            yield family
        answers = CounterMetricFamily(
            "serinus_torchserve_responses", "Answers of TorchServe, by class of status", labels=[*names, "class"]
        )
        for name, label in _CLASSES.items():
            answers.add_metric([*values, label], counts.get(name, 0.0))
        yield answers

    def close(self) -> None:
        """Ends Java and its workers."""
        self._closing.set()
        self._supervisor.stop()
        if self._looker.is_alive():
            self._looker.join(2 * _LOOK_TIMEOUT)
        self._forget()
        self._scratch.remove()

    def _forget(self) -> None:
        for client in (self._client, self._management, self._scraper):
            if client is not None:
                client.close()
        self._client = self._management = self._scraper = None

    def _start(self) -> subprocess.Popen[bytes]:
        places = self._places
        self._forget()
        for folder in (places.home, places.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        for api in ("inference", "management", "metrics"):
            places.socket(api).unlink(missing_ok=True)
        self._worker_died.clear()
        self._healthy = False
        return spawn(
            settings.command(self._config, places),
            settings.environment(self._config, places, os.environ),
            places.home,
            self._log,
        )

    def _log(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        level, logger, text = found.groups() if found is not None else ("INFO", "stdout", line)
        self._last_lines.append(text.strip())
        if "Backend worker process died" in text:
            self._worker_died.set()
            self._healthy = False
        logs.event(_LEVELS.get(level, "info"), "torchserve", logger=logger, line=text.strip())

    def _prepare(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the keys, then for a worker that has loaded the model."""
        until = time.monotonic() + self._config.engine_start_timeout
        keys = None
        while keys is None:
            self._go_on(process, until)
            with contextlib.suppress(OSError, ValueError):
                keys = json.loads(self._places.keys.read_bytes())
        # Whoever reads the file may use the server; nothing needs it any more.
        self._places.keys.unlink()
        timeout = self._config.engine_timeout + 1.0
        self._client = Client(self._places.socket("inference"), keys["inference"]["key"], timeout)
        self._management = Client(self._places.socket("management"), keys["management"]["key"], _LOOK_TIMEOUT)
        self._scraper = Client(self._places.socket("metrics"), "", _LOOK_TIMEOUT)
        while not self._has_worker(self._management):
            self._go_on(process, until)
        self._healthy = True

    def _go_on(self, process: subprocess.Popen[bytes], until: float) -> None:
        why = None
        if process.poll() is not None:
            why = f"it ended with {process.returncode}; are Java and {self._config.torchserve_home}/ts there?"
        elif self._worker_died.wait(0.05):
            why = "its worker ended while it loaded the model"
        elif time.monotonic() > until:
            why = f"it was not ready in {self._config.engine_start_timeout:g} s"
        elif self._closing.is_set():
            why = "the server is going away"
        if why is not None:
            told = [line for line in self._last_lines if "Error" in line or "Exception" in line]
            raise EngineUnavailableError(f"{why}{': ' + told[-1][:300] if told else ''}")

    def _has_worker(self, management: Client) -> bool:
        try:
            reply = management.get(f"/models/{self._config.model_name}")
            models = json.loads(reply.body)
            return reply.status == 200 and any(each["status"] == "READY" for each in models[0]["workers"])
        except (EngineError, ValueError, KeyError, TypeError, IndexError):
            return False

    def _look(self) -> None:
        """Every two seconds: is there a worker, and what do its counters say?"""
        in_vain = 0
        while not self._closing.wait(_LOOK_SECONDS):
            management, scraper = self._management, self._scraper
            if not self._supervisor.up or management is None or scraper is None:
                in_vain = 0
                continue
            try:
                management.get("/ping")
                in_vain = 0
            except EngineError:
                in_vain += 1
                if in_vain >= _LOOKS_IN_VAIN:
                    self._supervisor.replace("it does not answer")
                    in_vain = 0
                continue
            self._healthy = self._has_worker(management)
            with contextlib.suppress(EngineError, ValueError):
                self._counts = _counters(scraper.get("/metrics").body.decode())


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except ValueError:
        return body


def _counters(text: str) -> dict[str, float]:
    wanted = {*_COUNTERS, *_CLASSES}
    found: dict[str, float] = {}
    # Trailing commas in labels are TorchServe's own.
    for family in text_string_to_metric_families(text.replace(",}", "}")):
        if family.name in wanted:
            scale = _COUNTERS[family.name][2] if family.name in _COUNTERS else 1.0
            found[family.name] = scale * sum(
                sample.value for sample in family.samples if not sample.name.endswith("_created")
            )
    return found


def open_engine(config: Config) -> TorchServeEngine:
    """The archive in `config.model_dir`, served by TorchServe. Raises FailureError."""
    directory = config.model_dir
    archive = mar.only(directory)
    if config.engine != "torchserve" and not config.allow_python:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{archive.name} brings Python code of its own (its handler): say SERINUS_ENGINE=torchserve to run it in "
            "TorchServe, or SERINUS_ENGINE=torch and SERINUS_ALLOW_PYTHON=true to run it without",
        )
    signature, style = declared.read(directory)
    if signature is None:
        raise declared.missing(directory, archive.name)
    if not (config.torchserve_home / "ts" / "frontend").is_dir():
        raise FailureError(
            Reason.INVALID_CONFIG,
            f"there is no TorchServe in {config.torchserve_home} (SERINUS_TORCHSERVE_HOME): use the torch flavour of "
            "the image",
        )
    scratch = Scratch()
    places = settings.Places(scratch.path)
    try:
        places.store.mkdir()
        unpacked = mar.unpack(archive, places.store / config.model_name, config.max_model_bytes)
        version = str(unpacked.manifest["model"].get("modelVersion") or "1.0")
        places.configuration.write_text(settings.properties(config, places, version, style.body))
        places.logging.write_text(settings.LOGGING)
        engine = TorchServeEngine(config, signature, style.body, places, scratch)
        try:
            engine.open()
        except BaseException:
            engine.close()
            raise
    except BaseException:
        scratch.remove()
        raise
    return engine
