"""Processes that outlive the command that started them, known by a record of who they are.

A record holds the process id together with the process's start time, so that an id which the kernel has given to
somebody else in the meantime is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.commands import environment
from cluster.errors import ClusterError
from cluster.wait import until


@dataclass(frozen=True)
class Record:
    """One component: what runs it and, while it runs, which process it is."""

    name: str
    argv: list[str]
    env: dict[str, str]
    pid: int = 0
    start_time: int = 0
    stopped_on_purpose: bool = False


def start_time(pid: int) -> int | None:
    """The kernel's start time of a live process in clock ticks after boot; None when it is gone or a zombie.

    A killed process is a zombie as soon as its first thread has ended; while others have not, it still holds its ports.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" and threads <= 1 else int(fields[19])


# Every component carries this variable, so that one whose record was never written is found all the same.
MARK = "SERINUS_CLUSTER_RUN"


def marked_folders() -> set[Path]:
    """The run folders of all clusters, of any cache, that have a live process on this machine."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                for entry in (folder / "environ").read_bytes().split(b"\0"):
                    name, _, value = entry.partition(b"=")
                    if name == MARK.encode():
                        found.add(Path(os.fsdecode(value)))
    return found


class Processes:
    """The components of one cluster, their records in ``folder``/pids and their output in ``folder``/logs."""

    def __init__(self, folder: Path) -> None:
        self._mark = f"{MARK}={folder}".encode()
        self._env = {MARK: str(folder)}
        self._pids = folder / "pids"
        self._logs = folder / "logs"

    def log_file(self, name: str) -> Path:
        """Where a component's stdout and stderr go."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """The recorded components, in the order of their first start."""
        files = (
            sorted(self._pids.glob("*.json"), key=lambda file: file.stat().st_ctime_ns) if self._pids.is_dir() else []
        )
        return [file.stem for file in files]

    def read(self, name: str) -> Record | None:
        """A component's record; None when there is none or it was cut short by a crash."""
        try:
            return Record(**json.loads((self._pids / f"{name}.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start a detached component and record it; does nothing when it is already running."""
        if not self.alive(name):
            self._spawn(Record(name=name, argv=[str(part) for part in argv], env=dict(env or {})))

    def restart(self, name: str) -> None:
        """Start a component again as it was started before; does nothing when it is running."""
        record = self.read(name)
        if record is None:
            raise ClusterError(f"no component called {name}; known: {', '.join(self.names()) or 'none'}")
        if not self.alive(name):
            self._spawn(record)

    def alive(self, name: str) -> bool:
        """Whether the very process that was started is still running."""
        record = self.read(name)
        if record is None or record.pid <= 0:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record.pid, os.WNOHANG)
        return start_time(record.pid) == record.start_time

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL, timeout: float = 10, *, keep: bool = False) -> None:
        """Signal a component and wait until it is gone; ``keep`` marks it as stopped on purpose, to be restarted."""
        record = self.read(name)
        if record is None:
            if keep:
                raise ClusterError(f"no component called {name}; known: {', '.join(self.names()) or 'none'}")
            (self._pids / f"{name}.json").unlink(missing_ok=True)
            return
        if keep:
            self._write(replace(record, stopped_on_purpose=True))
        if self.alive(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, sig)
            until(f"{name} to end", lambda: not self.alive(name), timeout, interval=0.02)
        if not keep:
            (self._pids / f"{name}.json").unlink(missing_ok=True)

    def require(self, name: str) -> None:
        """Raise ClusterError with a component's last words when it has ended by itself."""
        if not self.alive(name):
            last = self.log_file(name).read_text(errors="replace")[-1500:]
            raise ClusterError(f"{name} has ended; its last words: {last}")

    def status(self) -> list[str]:
        """One line for each component."""
        return [f"{name:26} {'running' if self.alive(name) else 'not running'}" for name in self.names()]

    def logs(self, name: str) -> str:
        """What a component has written since its first start."""
        if not self.log_file(name).exists():
            raise ClusterError(f"no component called {name}; known: {', '.join(self.names()) or 'none'}")
        return self.log_file(name).read_text(errors="replace")

    def strays(self) -> list[int]:
        """Live processes that carry this cluster's mark, recorded or not: components and what they started."""
        pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        return [pid for pid in pids if start_time(pid) is not None and self._marked(pid)]

    def kill_strays(self) -> None:
        """Kill every process that carries this cluster's mark and wait until none is left."""

        def none_left() -> bool:
            left = self.strays()
            for pid in left:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
            return not left

        until("the cluster's processes to end", none_left, timeout=15, interval=0.05)

    def _spawn(self, record: Record) -> None:
        self._pids.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        if not Path(record.argv[0]).is_file():
            raise ClusterError(f"{record.name}: {record.argv[0]} does not exist")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            record.argv[0],
            record.argv,
            environment({**record.env, **self._env}),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_file(record.name)), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        self._write(replace(record, pid=pid, start_time=start_time(pid) or 0, stopped_on_purpose=False))
        # The kernel lets the parent go on a moment before the new program's environment can be read.
        until(f"{record.name} to run", lambda: self._marked(pid) or start_time(pid) is None, 30, interval=0.002)

    def _marked(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return False

    def _write(self, record: Record) -> None:
        target = self._pids / f"{record.name}.json"
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(record)))
        partial.replace(target)
