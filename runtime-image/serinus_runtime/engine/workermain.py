"""A worker process from the inside: makes its service, then answers one message at a time until the server goes."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import Engine
from serinus_runtime.engine.frames import ConnectionLostError, Message, receive, send
from serinus_runtime.failures import FailureError

START = "start"
OK = "ok"
ERROR = "error"
_DATA_SLACK = 1 << 30


class Service(Protocol):
    """What a worker does. Its factory is named as `module:function` and is called with the program's arguments."""

    def describe(self) -> Mapping[str, Any]:
        """What the server wants to know once it runs."""

    def handle(self, op: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Answers one request; whatever is raised is told to the server and ends nothing."""


def main(requests: int, lifeline: int) -> None:
    """Serves the socket `requests`; ends when it is closed, or at once when the pipe `lifeline` is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, args=(lifeline,), daemon=True).start()
    with socket.socket(fileno=requests) as sock, contextlib.suppress(ConnectionLostError, OSError):
        service = _start(sock)
        while service is not None:
            message = receive(sock)
            try:
                answer = Message(OK, {}, service.handle(message.op, message.meta, message.arrays))
                send(sock, answer)
            except (ConnectionLostError, OSError):
                raise
            except Exception as error:
                send(sock, _failure(error))
    sys.stdout.flush()
    # Threads and atexit hooks of whatever was loaded could hold the process up.
    os._exit(0)


def _start(sock: socket.socket) -> Service | None:
    message = receive(sock)
    memory = message.meta["memory"]
    try:
        if memory:
            limit = 2 * memory + _DATA_SLACK
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        module, _, name = message.meta["factory"].partition(":")
        made = getattr(importlib.import_module(module), name)(**message.meta["arguments"])
        service: Service = EngineService(made) if isinstance(made, Engine) else made
        send(sock, Message(OK, service.describe()))
    except Exception as error:
        send(sock, _failure(error))
        return None
    return service


def _failure(error: Exception) -> Message:
    text = error.message if isinstance(error, FailureError) else str(error).strip()
    lines = text.splitlines()
    return Message(ERROR, {"kind": type(error).__name__, "text": (lines[0] if lines else "")[:500]})


def _end_with_the_server(lifeline: int) -> None:
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    os._exit(1)


class EngineService:
    """A whole engine in a worker; `remote.RemoteEngine` is the other end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Mapping[str, Any]:
        """The engine's signature and names."""
        engine = self._engine
        signature = engine.signature
        return {
            "inputs": [[spec.name, spec.datatype, list(spec.shape)] for spec in signature.inputs],
            "outputs": [[spec.name, spec.datatype, list(spec.shape)] for spec in signature.outputs],
            "batched": signature.batched,
            "runtime": engine.runtime,
            "platform": engine.platform,
            "backend": engine.backend,
            "details": dict(engine.details),
        }

    def handle(self, op: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """`run`: the outputs that meta names, in that order."""
        if op != "run":
            raise ValueError(f"an engine does not know {op!r}")
        names: list[str] = meta["outputs"]
        return dict(zip(names, self._engine.run(arrays, names), strict=True))
