"""Keeps a child process running: started, watched, replaced with back-off, ended with its whole process group."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serinus_runtime import logs
from serinus_runtime.engine.memory import resident

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_STEADY = 60.0
"""Seconds after which a child counts as well, and the next pause is short again."""
_MAX_LINE = 2000
_LOOK_MILLISECONDS = 250
# The kernel ends the child when the thread that started it ends, however that happens; exec keeps this.
_WITH_PARENT = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,int(signal.SIGKILL));"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)

Line = Callable[[str], None]


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    line: Line,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own; it ends when the calling thread does.

    `line` is told what it writes, line by line, on another thread. `keep`: file descriptors it inherits.
    Raises OSError.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *command],
        env=dict(environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=keep,
        start_new_session=True,
    )
    assert process.stdout is not None
    threading.Thread(target=_read_lines, args=(process.stdout, line), name="serinus-child-log", daemon=True).start()
    return process


def _read_lines(stream: IO[bytes], line: Line) -> None:
    with stream:
        while raw := stream.readline(_MAX_LINE):
            if text := raw.decode("utf-8", "replace").rstrip():
                with contextlib.suppress(Exception):
                    line(text)


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """SIGTERM to the process group, and SIGKILL after `patience` seconds, or at once where it is 0."""
    if patience > 0 and process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    # What the child has started may outlive it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)


class Supervisor:
    """One child. `start` returns when it is ready; afterwards it is replaced whenever it ends."""

    def __init__(
        self,
        name: str,
        start: Callable[[], subprocess.Popen[bytes]],
        ready: Callable[[subprocess.Popen[bytes]], None],
        *,
        patience: float = 0.0,
        memory: int = 0,
    ) -> None:
        """`ready` returns when the child can work, and raises when it cannot. Both are called on this one's thread.

        `memory`: bytes of resident memory above which a child that is ready is replaced; 0: any.
        """
        self._name = name
        self._start = start
        self._ready = ready
        self._patience = patience
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._first = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name=f"serinus-{name}", daemon=True)
        self.up = False
        """True while the child is ready."""
        self.starts = 0
        """How often it was started."""

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the child and waits until it is ready. Raises what kept it from it."""
        self._thread.start()
        self._first.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def alive(self) -> bool:
        """False when nobody watches any more."""
        return self._thread.is_alive()

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Whether the child is up, and how often it was started."""
        up = GaugeMetricFamily("serinus_engine_up", "1 while the engine's process can answer", labels=names)
        up.add_metric(values, float(self.up))
        starts = CounterMetricFamily(
            "serinus_engine_starts", "How often the engine's process was started", labels=names
        )
        starts.add_metric(values, float(self.starts))
        return (up, starts)

    def replace(self, why: str) -> None:
        """Ends the child, which is stuck; another follows."""
        self.up = False
        process = self._process
        if process is not None and not self._stopping.is_set():
            logs.event("error", f"{self._name} is ended and started anew", why=why)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends the child for good."""
        self._stopping.set()
        process = self._process
        if process is not None:
            end(process, self._patience)
        self._thread.join(timeout=15)

    def _watch(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            if not self._once():
                return
            if self._stopping.is_set():
                return
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY else pause
            logs.event("error", f"{self._name} has ended; another is started", pause=pause, starts=self.starts)
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self) -> bool:
        """One child from start to end. False: the first one could not be made ready, and nobody waits for another."""
        process: subprocess.Popen[bytes] | None = None
        try:
            self.starts += 1
            self._process = process = self._start()
            if self._stopping.is_set():
                return False
            self._ready(process)
            self.up = True
            self._first.set()
            self._await_end(process)
        except Exception as error:
            if not self._first.is_set():
                self._failure = error
                return False
            logs.event("error", f"{self._name} could not be started", why=str(error)[:500])
        finally:
            self.up = False
            if process is not None:
                end(process, 0.0)
            self._first.set()
        return True

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when the child has ended; ends it when it takes too much memory."""
        if self._memory:
            try:
                ended = os.pidfd_open(process.pid)
            except ProcessLookupError:
                return
            poller = select.poll()
            poller.register(ended, select.POLLIN)
            try:
                while not poller.poll(_LOOK_MILLISECONDS):
                    held = resident(process.pid)
                    if self.up and held > self._memory:
                        self.replace(f"it holds {held} bytes of memory, and may hold {self._memory}")
            finally:
                os.close(ended)
        process.wait()
