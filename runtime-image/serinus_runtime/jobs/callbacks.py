"""Tells a client's own server that its job is done: only hosts that were named, a few tries, signed.

Headers and signature follow Standard Webhooks (standardwebhooks.com): `webhook-id`, `webhook-timestamp` and
`webhook-signature`, which is `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from serinus_runtime.jobs.records import Result
from serinus_runtime.problems import InvalidRequestError

HEADER = b"x-callback-url"
_TRIES = 5
_TIMEOUT = 5.0
_WAITING = 1000
_THREADS = 2
_MAX_URL = 2048


def check_callback(value: bytes, hosts: frozenset[str]) -> str:
    """The address in `value` if it is one of `hosts` (`host`, or `host:port`). Raises InvalidRequestError."""
    name = HEADER.decode()
    if not hosts:
        raise InvalidRequestError(f"{name}: callbacks are off here: poll the address in Location instead")
    text = value.decode("latin-1")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidRequestError(f"{name}: this is not an address: write https://HOST/PATH") from None
    host = (parts.hostname or "").lower()
    # The address goes into a request line: nothing in it may end one.
    if parts.scheme not in ("http", "https") or not host or not text.isascii() or any(c <= " " for c in text):
        raise InvalidRequestError(f"{name}: this is not an address: write https://HOST/PATH")
    if parts.username is not None or parts.password is not None or len(text) > _MAX_URL:
        raise InvalidRequestError(f"{name}: the address must have no user in it, and at most {_MAX_URL} characters")
    wanted = host if port is None else f"{host}:{port}"
    if wanted not in hosts:
        raise InvalidRequestError(f"{name}: {wanted!r} is not one of the hosts that may be called back")
    return text


def sign(secret: bytes, job: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    digest = hmac.new(secret, f"{job}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def read_secret(path: Path) -> bytes:
    """The secret in the file `path`, as it is or as `whsec_` and base64. Raises OSError, ValueError."""
    text = path.read_bytes().strip()
    secret = base64.b64decode(text[6:], validate=True) if text.startswith(b"whsec_") else text
    if len(secret) < 16:
        raise ValueError("the secret is shorter than 16 bytes: make one with openssl rand -hex 32")
    return secret


class Callbacks:
    """Posts results from threads of its own. `pause` is the first wait between tries, in seconds, and doubles."""

    def __init__(self, hosts: frozenset[str], secret: bytes | None, *, pause: float = 1.0) -> None:
        self.hosts = hosts
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self._secret = secret
        self._pause = pause
        self._waiting = 0
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS, "serinus-callback")

    @property
    def waiting(self) -> int:
        """Callbacks that were not made yet."""
        return self._waiting

    def post(self, url: str, job: str, result: Result) -> None:
        """Posts `result` soon, or drops it when too many wait."""
        if self._waiting >= _WAITING or self._closing.is_set():
            self.dropped += 1
            return
        self._waiting += 1
        self._threads.submit(self._deliver, url, job, result)

    def _deliver(self, url: str, job: str, result: Result) -> None:
        delivered = False
        try:
            for attempt in range(_TRIES):
                if self._try(url, job, result):
                    delivered = True
                    return
                if attempt == _TRIES - 1 or self._closing.wait(self._pause * 2**attempt):
                    return
        finally:
            self._waiting -= 1
            if delivered:
                self.sent += 1
            else:
                self.failed += 1

    def _try(self, url: str, job: str, result: Result) -> bool:
        parts = urlsplit(url)
        host, now = parts.hostname or "", int(time.time())
        headers = {
            "content-type": result.content_type.decode("latin-1"),
            "user-agent": "serinus-runtime",
            "webhook-id": job,
            "webhook-timestamp": str(now),
            "x-serinus-status": str(result.status),
        }
        for line in result.headers.split(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(": ")
            if name == "inference-header-content-length":
                headers[name] = value
        if self._secret is not None:
            headers["webhook-signature"] = sign(self._secret, job, now, result.body)
        connection = (
            http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT, context=ssl.create_default_context())
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT)
        )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("POST", target, result.body, headers)
            # Redirects are not followed: they could lead anywhere.
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def close(self, patience: float) -> None:
        """Gives what waits its next try, and no more, for `patience` seconds at most. Blocks."""
        self._closing.set()
        until = time.monotonic() + patience
        while self._waiting and time.monotonic() < until:
            time.sleep(0.01)
        self._threads.shutdown(wait=False, cancel_futures=True)
