"""PyTorch in a worker process of its own: TorchScript, exported programs, and TorchServe handlers without TorchServe.

The worker has its own interpreter (SERINUS_TORCH_PYTHON), so torch and its numpy need not be the front's, a crash is
not the front's, and a stuck batch is ended without it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from serinus_runtime import bfloat16, logs
from serinus_runtime.config import Config
from serinus_runtime.datatypes import Array
from serinus_runtime.engine import declared, mar
from serinus_runtime.engine.base import (
    CodeError,
    Engine,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    Signature,
)
from serinus_runtime.engine.memory import resident
from serinus_runtime.engine.scratch import Scratch
from serinus_runtime.engine.supervisor import Supervisor, spawn
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.torchworker import frames

FILES = ("model.pt2", "model.pt")
_MAX_ANSWER = 1 << 30
_PACKAGE = Path(__file__).parents[2]
# Nothing of the front's packages may be imported by the model's code: the folder is on the path only for this.
_BOOT = (
    "import sys; sys.path.append(sys.argv[2]); import serinus_runtime.torchworker.main as worker; "
    "sys.path.remove(sys.argv[2]); worker.main(int(sys.argv[1]))"
)
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
                   "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")  # fmt: skip


class WorkerError(Exception):
    """The worker said no; the text is its own. `code`: the model's own Python raised it."""

    def __init__(self, text: str, *, code: bool) -> None:
        super().__init__(text)
        self.code = code


class TorchEngine(Engine):
    """One model in one worker process."""

    backend = "pytorch"
    inline = False

    def __init__(self, config: Config, file: str, load: dict[str, Any]) -> None:
        self._config = config
        self._file = file
        self._load = load
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._signature: Signature | None = None
        self._told: dict[str, Any] = {}
        self._scratch: Scratch | None = None
        self._supervisor = Supervisor("the torch worker", self._start, self._prepare, memory=config.worker_memory)

    @property
    def signature(self) -> Signature:
        """As declared in model.json, or by the exported program itself."""
        assert self._signature is not None
        return self._signature

    @property
    def runtime(self) -> str:
        """`torch-` and its version."""
        return str(self._told.get("runtime", "torch"))

    @property
    def platform(self) -> str:
        """What Triton calls TorchScript; its own word for the rest."""
        return "pytorch_libtorch" if self._told.get("kind") == "torchscript" else "pytorch"

    @property
    def details(self) -> Mapping[str, str]:
        """The kind of file, and where it runs."""
        return {"kind": str(self._told.get("kind", "")), "device": self._config.torch_device}

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._supervisor.pid

    def open(self, scratch: Scratch | None = None) -> None:
        """Starts the worker and loads the model; `scratch` is removed at the end. Raises FailureError."""
        self._scratch = scratch
        try:
            self._supervisor.start()
        except FailureError:
            self._drop()
            raise
        except (WorkerError, OSError, ValueError) as error:
            self._drop()
            text = str(error)
            if isinstance(error, ConnectionError | FileNotFoundError):
                text = (
                    f"the worker ended while loading ({text}); what it wrote is in the log. Is torch installed for it?"
                )
            raise FailureError(Reason.MODEL_LOAD_FAILED, f"torch cannot load {self._file}: {text}") from error

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The named outputs for one batch. Raises EngineError; of its kinds, Unavailable when the worker has gone."""
        names = [spec.name for spec in self.signature.inputs]
        every = [spec.name for spec in self.signature.outputs]
        with self._lock:
            sock = self._sock
            if sock is None or not self._supervisor.up:
                raise EngineUnavailableError("the model's worker is being started: try again")
            try:
                _, arrays = self._ask(
                    sock, {"do": "run", "outputs": every, **self._halves()}, {name: inputs[name] for name in names},
                    self._config.engine_timeout,
                )  # fmt: skip
            except TimeoutError:
                self._supervisor.replace(f"a batch took longer than {self._config.engine_timeout:g} s")
                self._drop()
                raise EngineTimeoutError("it did not answer in time, and its worker is started anew") from None
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._supervisor.replace(f"the worker is gone or talks nonsense: {error}")
                self._drop()
                raise EngineUnavailableError("the model's worker ended on this batch; it is started anew") from None
            except WorkerError as error:
                raise (CodeError if error.code else EngineError)(str(error)) from None
        checked = dict(zip(every, declared.check([arrays[name] for name in every], every, self.signature), strict=True))
        return [checked[name] for name in outputs]

    def _halves(self) -> dict[str, list[int]]:
        found = [at for at, spec in enumerate(self.signature.inputs) if spec.datatype == bfloat16.NAME]
        return {"bfloat16": found} if found else {}

    def alive(self) -> bool:
        """False when nobody looks after the worker any more."""
        return self._supervisor.alive()

    def ready(self) -> bool:
        """False while the worker is being started."""
        return self._supervisor.up

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Whether the worker is up, and how often it was started."""
        return self._supervisor.collect(names, values)

    def close(self) -> None:
        """Ends the worker."""
        self._supervisor.stop()
        with self._lock:
            self._drop()
        if self._scratch is not None:
            self._scratch.remove()

    def _start(self) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = spawn(
                    [self._config.torch_python or sys.executable, "-I", "-B", "-u", "-c", _BOOT, str(theirs.fileno()),
                     str(_PACKAGE)],
                    self._environment(),
                    Path(self._load["directory"]),
                    lambda line: logs.event("info", "torch worker", line=line),
                    (theirs.fileno(),),
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        with self._lock:
            self._drop()
            self._sock = ours
        return process

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
        threads = str(self._config.threads)
        return {**kept, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONDONTWRITEBYTECODE": "1"}

    def _prepare(self, process: subprocess.Popen[bytes]) -> None:
        sock = self._sock
        assert sock is not None
        told, _ = self._ask(sock, {"do": "load", **self._load}, {}, self._config.engine_start_timeout)
        signature = self._signature
        if signature is None and told.get("signature") is not None:
            signature = declared.convert(told["signature"])
        if signature is None:
            raise declared.missing(self._config.model_dir, self._file)
        takes = told.get("takes")
        if takes is not None and takes != len(signature.inputs):
            raise FailureError(
                Reason.MODEL_LOAD_FAILED,
                f"{self._file} takes {takes} inputs, but {declared.FILE} declares {len(signature.inputs)}: "
                "declare them in the order of forward()",
            )
        limit, held = self._config.worker_memory, resident(process.pid)
        if limit and held > limit:
            raise FailureError(
                Reason.MODEL_LOAD_FAILED,
                f"{self._file} and torch take {held} bytes of memory before the first batch, more than "
                f"SERINUS_WORKER_MEMORY ({limit}): allow more, or 0 for as much as the container has",
            )
        self._told, self._signature = told, signature

    def _ask(
        self, sock: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, Array], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        sock.settimeout(timeout)
        frames.send(sock, header, arrays)
        told, found = frames.receive(sock, _MAX_ANSWER)
        if not told["ok"]:
            raise WorkerError(str(told["error"])[:600], code=bool(told["code"]))
        return told, found

    def declare(self, signature: Signature | None) -> TorchEngine:
        """Sets what model.json declares."""
        self._signature = signature
        return self


def open_engine(config: Config) -> TorchEngine:
    """The model in `config.model_dir`: model.pt2, model.pt, or a .mar whose handler is run. Raises FailureError."""
    directory = config.model_dir
    signature, style = declared.read(directory)
    told: dict[str, Any] = {
        "directory": str(directory),
        "threads": config.threads,
        "device": config.torch_device,
        "allow_pickle": config.allow_pickle,
        "handler": None,
    }
    file = next((name for name in FILES if (directory / name).is_file()), None)
    if file is not None:
        engine = TorchEngine(config, file, {**told, "file": file}).declare(signature)
        engine.open()
        return engine
    archive = mar.only(directory)
    if not config.allow_python:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{archive.name} brings Python code of its own (its handler): SERINUS_ALLOW_PYTHON=true runs it in a "
            "worker process; a TorchScript model (model.pt) or an exported one (model.pt2) needs no code",
        )
    if signature is None:
        raise declared.missing(directory, archive.name)
    scratch = Scratch()
    try:
        unpacked = mar.unpack(archive, scratch.path / "model", config.max_model_bytes)
        engine = TorchEngine(
            config,
            archive.name,
            {
                **told,
                "directory": str(unpacked.directory),
                "handler": unpacked.handler,
                "manifest": unpacked.manifest,
                "name": config.model_name,
                "batch_size": config.usual_batch,
                "style": style.body,
                "inputs": [spec.name for spec in signature.inputs],
                "outputs": [[spec.name, spec.datatype, list(spec.shape)] for spec in signature.outputs],
            },
        ).declare(signature)
        engine.open(scratch)
    except BaseException:
        scratch.remove()
        raise
    return engine
