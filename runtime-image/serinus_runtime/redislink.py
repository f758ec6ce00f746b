"""The one connection to Redis that everything shares: bounded in time, and left alone while it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from serinus_runtime import logs
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.proxy.breaker import Breaker

if TYPE_CHECKING:
    from redis.asyncio import Redis

_T = TypeVar("_T")
_CONNECTIONS = 8
_COMMAND_SECONDS = 2.0
_SCHEMES = ("redis", "rediss", "unix")


class RedisUnavailableError(Exception):
    """Redis did not answer in time, refused, or is left alone for now."""


def check_url(text: str) -> str:
    """`text` if it is an address of Redis without a password in it. Raises ValueError."""
    try:
        parts = urlsplit(text)
        port, password = parts.port, parts.password
    except ValueError:
        parts, port, password = urlsplit(""), None, None
    if parts.scheme not in _SCHEMES or not (parts.hostname or parts.scheme == "unix"):
        raise ValueError("this is not an address of Redis: write redis://HOST:6379/0, or rediss:// for TLS")
    if password is not None or "password=" in parts.query:
        raise ValueError(
            "a password must not be in the address: put it in a file and name it in SERINUS_REDIS_PASSWORD_FILE"
        )
    if port is not None and port == 0:
        raise ValueError("port 0 is no port: write redis://HOST:6379/0")
    return text


def _client(url: str, password_file: Path | None, ca_file: Path | None) -> Redis:
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.credentials import CredentialProvider
    except ImportError:
        raise FailureError(
            Reason.INVALID_CONFIG, "SERINUS_REDIS_URL needs the package redis: install serinus-runtime[redis]"
        ) from None

    class FromFile(CredentialProvider):
        """Read at every new connection, so that a changed Secret needs no restart."""

        def __init__(self, path: Path) -> None:
            self._path = path

        def get_credentials(self) -> tuple[str]:
            return (self._path.read_text().strip(),)

        async def get_credentials_async(self) -> tuple[str]:
            return self.get_credentials()

    options: dict[str, Any] = {"max_connections": _CONNECTIONS, "timeout": 1.0, "protocol": 2, "retry": None}
    options |= {"socket_connect_timeout": 1.0, "socket_timeout": 5.0, "health_check_interval": 0}
    if password_file is not None:
        options["credential_provider"] = FromFile(password_file)
    if ca_file is not None:
        options["ssl_ca_certs"] = str(ca_file)
    pool = BlockingConnectionPool.from_url(url, **options)
    return Redis.from_pool(pool)


class RedisLink:
    """Runs commands with a bound in time. After some failures in a row Redis is left alone, longer each time."""

    def __init__(self, url: str, *, password_file: Path | None = None, ca_file: Path | None = None) -> None:
        self.failures = 0
        self.skipped = 0
        self._redis = _client(url, password_file, ca_file)
        self._breaker = Breaker(failures=3, pause=0.5, longest_pause=10.0, patience=2.0)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._told = -1e9

    @property
    def blocked(self) -> bool:
        """True while Redis is left alone."""
        return self._breaker.retry_after(time.monotonic()) > 0.0

    async def run(self, work: Callable[[Redis], Awaitable[_T]], within: float) -> _T:
        """What `work` gives, in `within` seconds. Raises RedisUnavailableError.

        What is late goes on without its caller: cancelling it would close its connection, and making a new one for
        every late answer is what a slow Redis needs least.
        """
        number = self._breaker.admit(time.monotonic())
        if number is None:
            self.skipped += 1
            raise RedisUnavailableError("left alone for now")
        task = asyncio.get_running_loop().create_task(self._bounded(work))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait({task}, timeout=within)
        except asyncio.CancelledError:
            self._breaker.gave_up(number)
            raise
        error = TimeoutError(f"no answer in {within:g} s") if not task.done() else task.exception()
        if error is None:
            self._breaker.succeeded(number)
            return task.result()
        self.failures += 1
        now = time.monotonic()
        self._breaker.failed(number, now)
        if now - self._told >= 60.0:
            self._told = now
            logs.event("warning", "Redis does not answer", error=repr(error)[:300])
        raise RedisUnavailableError(str(error)[:200]) from None

    async def _bounded(self, work: Callable[[Redis], Awaitable[_T]]) -> _T:
        async with asyncio.timeout(_COMMAND_SECONDS):
            return await work(self._redis)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Asked for, so that asyncio does not tell of an exception that nobody has taken.
            task.exception()

    async def close(self) -> None:
        """Closes all connections."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        # Before the pool closes: one that was still connecting gives its connection back first.
        await asyncio.gather(*left, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._redis.aclose()
