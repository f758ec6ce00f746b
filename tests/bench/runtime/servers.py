"""Environments of peers, and servers as processes pinned to a core."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from bench.runtime.catalog import Peer
from cluster import wheel

ROOT = Path(__file__).parents[3]
SCRIPTS = Path(__file__).parent / "peers"
CACHE = Path(os.environ.get("SERINUS_CACHE") or Path.home() / ".cache" / "serinus") / "bench"
JSON = {"Content-Type": "application/json"}
_TICKS = os.sysconf("SC_CLK_TCK")


class UnavailableError(Exception):
    """The peer cannot be measured here; the text says why."""


def python_of(peer: Peer) -> Path:
    """The Python that has what `peer` needs, made on first use. Raises UnavailableError."""
    if peer.absent:
        raise UnavailableError(peer.absent)
    if peer.requirements is None:
        return Path(sys.executable)
    home = CACHE / "peers" / peer.name
    python = home / "bin" / "python"
    if (home / ".ready").exists():
        return python
    print(f"installing {peer.name}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    log = home.with_suffix(".log")
    with log.open("wb") as output:
        for command in (
            [_maker(peer), "-m", "venv", str(home)],
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", *peer.requirements],
        ):
            done = subprocess.run(command, stdout=output, stderr=output, check=False, timeout=1800)
            if done.returncode:
                words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                raise UnavailableError(f"pip could not install it: {words[-1][:200] if words else 'no output'}")
    (home / ".ready").touch()
    return python


def _maker(peer: Peer) -> str:
    return peer.interpreter if Path(peer.interpreter).is_file() else sys.executable


class Running:
    """A server of `peer` with `model` on `port`, ready when the block is entered."""

    def __init__(
        self, peer: Peer, model: Path, port: int, core: int | None, probe: bytes, headers: Mapping[str, str] = JSON
    ) -> None:
        self._peer = peer
        self._model = model
        self._port = port
        self._core = core
        self._probe = probe
        self._headers = dict(headers)
        self._process: subprocess.Popen[bytes]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._known: set[int] = set()

    def __enter__(self) -> Running:
        python = python_of(self._peer)
        environment = {
            "PATH": f"{python.parent}:{os.environ.get('PATH', '')}",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": self._folder.name,
        }
        if self._peer.name.startswith("serinus"):
            command = [str(python), "-m", "serinus_runtime", "serve"]
            environment |= {
                "PYTHONPATH": str(wheel.unpacked() if self._peer.compiled else ROOT / "runtime-image"),
                "SERINUS_HOST": "127.0.0.1",
                "SERINUS_HTTP_PORT": str(self._port),
                "SERINUS_METRICS_PORT": str(self._port + 1),
                "SERINUS_GRPC_PORT": "off",
                "SERINUS_MODEL_DIR": str(self._model.parent),
                "SERINUS_TERMINATION_LOG": os.devnull,
            }
            logfile = str(Path(self._folder.name) / "predictions.jsonl")
            environment |= {key: logfile if value == "LOGFILE" else value for key, value in self._peer.settings}
            if self._peer.torch:
                from bench.runtime import torchmodels

                environment |= torchmodels.settings(self._model, self._peer.torch)
        else:
            environment |= dict(self._peer.settings)
            command = [str(python), str(SCRIPTS / self._peer.file), str(self._model), str(self._port)]
        if self._core is not None:
            command = ["taskset", "-c", str(self._core), *command]
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def _wait(self) -> None:
        url = f"http://127.0.0.1:{self._port}{self._peer.path}"
        until = time.monotonic() + self._peer.seconds_to_start
        last = "no answer"
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            request = urllib.request.Request(url, self._probe, self._headers)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except urllib.error.HTTPError as error:
                last = f"{error.code} {error.read()[:200]!r}"
            except OSError as error:
                last = str(error)
            time.sleep(0.1)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        raise UnavailableError(f"it did not come up: {last}; {' | '.join(lines[-2:])[:300]}")

    def _tree(self) -> set[int]:
        """The server's process and whatever came from it."""
        parents: dict[int, int] = {}
        sessions: dict[int, int] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    parents[int(folder.name)] = int(fields[1])
                    sessions[int(folder.name)] = int(fields[3])
        found = {pid for pid, session in sessions.items() if session == self._process.pid} | {self._process.pid}
        found |= self._known & parents.keys()
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        self._known = found
        return found

    def cpu(self) -> float:
        """Seconds of CPU, user and system, of the whole tree so far."""
        total = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(int(field) for field in fields[11:15])
        return total / _TICKS

    def memory(self) -> float:
        """MB of the whole tree; what processes share is counted once (proportional set size)."""
        total = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024

    def _stop(self) -> None:
        tree = self._tree()
        for number, patience in ((signal.SIGINT, 3.0), (signal.SIGKILL, 5.0)):
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            until = time.monotonic() + patience
            while time.monotonic() < until:
                self._process.poll()
                if not any(Path(f"/proc/{pid}").exists() for pid in tree):
                    break
                time.sleep(0.05)
            tree = {pid for pid in tree if Path(f"/proc/{pid}").exists()}
        self._process.wait(10)
        self._folder.cleanup()
        self._log.close()


def free_port() -> int:
    """A port of which the next few are free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except OSError:
                continue
            return port
