"""Worker processes: code that may be slow, leak, hang or crash runs beside the server and not in it.

A `WorkerPool` keeps `count` processes of one program. A process that dies, takes too long for a call or too much memory
is killed and replaced, with a growing pause when that happens again and again. See `workermain` for the other side.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

import serinus_runtime
from serinus_runtime import logs
from serinus_runtime.datatypes import Array
from serinus_runtime.engine.base import CodeError, EngineError, EngineTimeoutError
from serinus_runtime.engine.frames import ConnectionLostError, Message, receive, send
from serinus_runtime.engine.memory import resident
from serinus_runtime.engine.workermain import OK, START
from serinus_runtime.failures import FailureError, Reason

REASONS = ("crash", "stuck", "memory", "start")
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from serinus_runtime.engine.workermain import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)
_WATCH_SECONDS = 0.25
_BACK_OFF = (0.0, 0.1, 0.5, 2.0, 5.0, 10.0)
"""Seconds before the first, second ... replacement in a row; the last one from then on."""
_HEALTHY_SECONDS = 60.0
"""A process that lived so long starts a new row."""
_CLOSE_SECONDS = 2.0


class Program(msgspec.Struct, frozen=True):
    """What a worker runs: `module:function`, called in the worker with `arguments`, gives a Service or an Engine."""

    factory: str
    arguments: Mapping[str, Any] = {}


class WorkerLimits(msgspec.Struct, frozen=True):
    """`call` and `start` in seconds; `memory` in bytes of resident memory, 0 for no limit but the container's."""

    call: float = 10.0
    start: float = 120.0
    memory: int = 0


class WorkerLostError(Exception):
    """The process ended while it had work."""


class _Worker:
    """One process and its socket. Used by one thread at a time."""

    def __init__(self, program: Program, limits: WorkerLimits) -> None:
        self.reason = ""
        """Why it was killed, if it was."""
        ours, theirs = socket.socketpair()
        watched, self._lifeline = os.pipe()
        root = str(Path(serinus_runtime.__file__).parent.parent)
        try:
            # -B: a byte code cache in the model directory would change its digest.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-B", "-c", _BOOT, root, str(theirs.fileno()), str(watched)],
                pass_fds=(theirs.fileno(), watched), stdin=subprocess.DEVNULL, stdout=2,
            )  # fmt: skip
        except OSError:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(watched)
        self._sock = ours
        self._talking = threading.Lock()
        try:
            deadline = time.monotonic() + limits.start
            meta = {"factory": program.factory, "arguments": dict(program.arguments), "memory": limits.memory}
            self.described = self._exchange(Message(START, meta), deadline).meta
        except BaseException:
            self.end(patience=0.0)
            raise

    def call(self, message: Message, deadline: float) -> Mapping[str, Array]:
        """Raises CodeError (the program's own words), WorkerLostError or TimeoutError."""
        return self._exchange(message, deadline).arrays

    def _exchange(self, message: Message, deadline: float) -> Message:
        try:
            with self._talking:
                send(self._sock, message, deadline)
                answer = receive(self._sock, deadline)
        except TimeoutError:
            raise
        except (ConnectionLostError, OSError) as error:
            raise WorkerLostError(str(error)) from None
        if answer.op != OK:
            raise CodeError(f"{answer.meta.get('kind')}: {answer.meta.get('text')}")
        return answer

    def kill(self, reason: str) -> None:
        """Ends the process at once, whatever it does."""
        self.reason = self.reason or reason
        self.process.kill()

    def memory(self) -> int:
        """Bytes of resident memory; 0 when the process has gone."""
        return resident(self.process.pid)

    def end(self, patience: float = _CLOSE_SECONDS) -> int:
        """Closes the socket, so that the process ends by itself, and kills it if it does not; its exit code."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        # Whoever waits for an answer is woken by the shutdown. Closed under it, the descriptor could be the next
        # worker's already, and the wait one for that.
        with self._talking:
            self._sock.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        return code


class WorkerPool:
    """See the module's text. `call` may be used from any number of threads; more than `count` wait for each other."""

    def __init__(self, program: Program, count: int = 1, limits: WorkerLimits = WorkerLimits()) -> None:  # noqa: B008
        """Starts the processes and waits for them. Raises FailureError(MODEL_LOAD_FAILED) when one does not start."""
        self._program = program
        self._limits = limits
        self._changed = threading.Condition()
        self._free: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._closing = threading.Event()
        self._down_since: float | None = None
        self.restarts = dict.fromkeys(REASONS, 0)
        self.count = count
        first: list[_Worker] = []
        try:
            for _ in range(count):
                first.append(_Worker(program, limits))
        except (EngineError, WorkerLostError, TimeoutError, OSError) as error:
            for worker in first:
                worker.end()
            raise FailureError(
                Reason.MODEL_LOAD_FAILED, f"a worker process does not start: {_why_not(error, limits)}"
            ) from error
        self.described = first[0].described
        self._threads = [
            threading.Thread(target=self._keep, args=(worker,), name="serinus-keeper", daemon=True) for worker in first
        ]
        for worker in first:
            self._add(worker)
        for thread in self._threads:
            thread.start()

    def call(self, op: str, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the program answers. When the process dies at it, another one gets the work, once.

        Raises CodeError: the program's own words; EngineError: it died twice; EngineTimeoutError: there was no answer
        in `limits.call` seconds, and the process was killed, or there was no process to ask.
        """
        message = Message(op, meta, arrays)
        for _ in range(2):
            worker = self._take(time.monotonic() + self._limits.call)
            deadline = time.monotonic() + self._limits.call
            try:
                answer = worker.call(message, deadline)
            except WorkerLostError:
                self._drop(worker, "crash")
            except TimeoutError:
                self._drop(worker, "stuck")
                raise EngineTimeoutError(f"a worker process gave no answer in {self._limits.call:g} s") from None
            except BaseException as error:
                if isinstance(error, EngineError):
                    self._give_back(worker)
                else:
                    self._drop(worker, "crash")
                raise
            else:
                self._give_back(worker)
                return answer
        raise EngineError("two worker processes died at these inputs")

    @property
    def ready(self) -> int:
        """Processes that can work or do so."""
        return len(self._workers)

    def pids(self) -> list[int]:
        """The processes."""
        with self._changed:
            return [worker.process.pid for worker in self._workers]

    def alive(self, patience: float) -> bool:
        """False when there has been no process to ask for `patience` seconds."""
        since = self._down_since
        return since is None or time.monotonic() - since < patience

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Restarts by reason, processes and their memory."""
        restarts = CounterMetricFamily(
            "serinus_worker_restarts", "Worker processes that were replaced, by reason", labels=[*names, "reason"]
        )
        for reason, number in self.restarts.items():
            restarts.add_metric([*values, reason], number)
        yield restarts
        with self._changed:
            workers = list(self._workers)
        ready = GaugeMetricFamily("serinus_workers", "Worker processes that can work", labels=names)
        ready.add_metric(values, len(workers))
        yield ready
        memory = GaugeMetricFamily("serinus_worker_memory_bytes", "Their resident memory together", labels=names)
        memory.add_metric(values, sum(worker.memory() for worker in workers))
        yield memory

    def close(self) -> None:
        """Ends the processes; what they do is lost."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            # One that is just starting a process ends it as soon as that is up; it holds nothing else.
            thread.join(2 * _CLOSE_SECONDS)

    def _add(self, worker: _Worker) -> None:
        with self._changed:
            self._workers.add(worker)
            self._free.append(worker)
            self._down_since = None
            self._changed.notify()

    def _take(self, deadline: float) -> _Worker:
        with self._changed:
            while not self._free:
                left = deadline - time.monotonic()
                if left <= 0 or self._closing.is_set() or not self._changed.wait(left):
                    raise EngineTimeoutError(f"no worker process was free in {self._limits.call:g} s")
            return self._free.pop()

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if worker in self._workers:
                self._free.append(worker)
                self._changed.notify()

    def _drop(self, worker: _Worker, reason: str) -> None:
        worker.kill(reason)
        with self._changed:
            self._workers.discard(worker)
            if worker in self._free:
                self._free.remove(worker)
            if not self._workers and self._down_since is None:
                self._down_since = time.monotonic()

    def _keep(self, worker: _Worker) -> None:
        """The thread of one place in the pool: watches its process, and replaces it."""
        row = 0
        while True:
            born = time.monotonic()
            self._watch(worker)
            if self._closing.is_set():
                worker.end()
                return
            self._drop(worker, "crash")
            code = worker.end(patience=0.0)
            self._count(worker.reason, f"exit code {code}")
            row = 0 if time.monotonic() - born > _HEALTHY_SECONDS else row
            while True:
                if self._closing.wait(_BACK_OFF[min(row, len(_BACK_OFF) - 1)]):
                    return
                row += 1
                try:
                    worker = _Worker(self._program, self._limits)
                    break
                except (EngineError, WorkerLostError, TimeoutError, OSError) as error:
                    self._count("start", _why_not(error, self._limits))
            self._add(worker)

    def _watch(self, worker: _Worker) -> None:
        limit = self._limits.memory
        # Popen.wait with a time-out looks twenty times a second; a descriptor of the process is told.
        ended = os.pidfd_open(worker.process.pid)
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        try:
            while not self._closing.is_set():
                if poller.poll(_WATCH_SECONDS * 1000):
                    return
                if limit and worker.memory() > limit:
                    self._drop(worker, "memory")
        finally:
            os.close(ended)

    def _count(self, reason: str, why: str) -> None:
        self.restarts[reason] += 1
        logs.event("error", "a worker process is replaced", reason=reason, why=why)


def _why_not(error: Exception, limits: WorkerLimits) -> str:
    if isinstance(error, TimeoutError):
        return f"it was not ready in {limits.start:g} s"
    if isinstance(error, WorkerLostError):
        return "it died while starting; its own words are in the log"
    return str(error)
