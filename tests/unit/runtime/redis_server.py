"""A real Redis from Debian on a free port, which tests may kill and start again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import packages

_PROGRAM = "/usr/bin/redis-server"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RedisServer:
    """One process; `url` stays the same when it is started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        command = [_PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--dir", str(self._folder), *self._options]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not self.answers():
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def answers(self) -> bool:
        """True when it answers, be it that a password is missing."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64)[:1] in (b"+", b"-")
        except OSError:
            return False

    def kill(self) -> None:
        """Ends it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Connections stay open, and nothing is answered any more."""
        assert self._process is not None
        os.kill(self._process.pid, 19)

    def resume(self) -> None:
        """Goes on."""
        assert self._process is not None
        os.kill(self._process.pid, 18)

    def command(self, *words: str) -> str:
        """What the server answers to a command of redis-cli's."""
        done = subprocess.run(
            ["/usr/bin/redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout.strip()


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A running Redis; installs it where that is allowed."""
    if shutil.which(_PROGRAM) is None:
        if os.geteuid() != 0:
            pytest.skip("redis-server is not installed, and only root can install it")
        packages.install({"redis-server": _PROGRAM})
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
