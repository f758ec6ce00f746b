"""JSON lines to an HTTP server: gzipped batches by POST, a bearer token from a file, retries that back off.

What may pass by itself (no connection, time-outs, 408, 429, 5xx) is tried again with full jitter (M. Brooker,
Exponential Backoff And Jitter, AWS Architecture Blog 2015), for `RETRY_SECONDS` at most; everything else loses the
batch at once. Since an answer can be lost after the server took the batch, a batch may arrive twice: `X-Serinus-Batch`
is the same then.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import random
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from serinus_runtime import __version__
from serinus_runtime.sinks.base import Sink, Stopping

RETRY_SECONDS = 60.0
_TIMEOUT = 10.0
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 10.0
_LAST_TRY_SECONDS = 2.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_ANSWER_BYTES = 2000


class HttpSink(Sink):
    """Posts to `url`. `token_file` is read again for each batch, so that tokens may change.

    Certificates are verified; `SSL_CERT_FILE` names other authorities than the system's. Redirects are not followed.
    """

    batch_bytes = 512 << 10
    gather_seconds = 1.0

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        retry_seconds: float = RETRY_SECONDS,
        timeout: float = _TIMEOUT,
        now: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Raises ValueError that says what is wrong with `url`."""
        super().__init__()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(f"{url!r} is not a server: write https://host[:port]/path, and tokens into a file")
        if token_file is not None and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ValueError(f"{url!r} would show the token to everybody on the way: write https://")
        self._host, self._port = parts.hostname, parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._token_file = token_file
        self._retry_seconds = retry_seconds
        self._timeout = timeout
        self._now = now
        self._draw = draw
        self._connection: http.client.HTTPConnection | None = None
        self._prefix = os.urandom(6).hex()
        self._batches = 0
        self.retries = 0

    def write(self, lines: Sequence[bytes], stopping: Stopping) -> None:
        """Posts one batch, again and again if need be. Raises OSError when it is lost."""
        self.write_blocks(lines, len(lines), stopping)

    def write_blocks(self, blocks: Sequence[bytes | bytearray], lines: int, stopping: Stopping) -> None:
        """See `write`."""
        body = gzip.compress(b"".join(blocks), compresslevel=1, mtime=0)
        self._batches += 1
        started = self._now()
        attempt = 0
        while True:
            trouble, wait = self._try(body)
            if not trouble:
                self.written += lines
                return
            attempt += 1
            backoff = self._draw(0.0, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt))
            wait = None if wait is None else max(wait, backoff)
            spent = self._now() - started
            limit = min(self._retry_seconds, _LAST_TRY_SECONDS) if stopping.asked else self._retry_seconds
            if wait is None or spent + wait > limit:
                self.failed += lines
                raise OSError(trouble)
            self.retries += 1
            if stopping.asked:
                time.sleep(min(wait, 0.2))
            else:
                stopping.wait(wait)

    def close(self, patience: float) -> None:
        """Closes the connection."""
        self._hang_up()

    def _try(self, body: bytes) -> tuple[str, float | None]:
        """What went wrong ("" when nothing did), and the shortest wait until it may be tried again, if it may."""
        fresh = self._connection is None
        try:
            headers = self._headers()
        except OSError as error:
            return f"the token cannot be read: {error}", 0.0
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("POST", self._target, body, headers)
            answer = self._connection.getresponse()
            said = answer.read(_ANSWER_BYTES + 1)
            if answer.will_close or len(said) > _ANSWER_BYTES:
                self._hang_up()
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            if not fresh:
                # The server closed a connection that was idle: nothing is wrong with it yet.
                return self._try(body)
            return f"{type(error).__name__}: {error}", 0.0
        if 200 <= answer.status < 300:
            return "", None
        text = f"the server answered {answer.status}: {said[:200].decode('utf-8', 'replace')}"
        return text, _retry_after(answer.getheader("Retry-After")) if answer.status in _PASSING else None

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "gzip",
            "User-Agent": f"serinus-runtime/{__version__}",
            "X-Serinus-Batch": f"{self._prefix}-{self._batches:x}",
        }
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        return headers

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _hang_up(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def _retry_after(text: str | None) -> float:
    try:
        return min(max(float(text or 0), 0.0), _LONGEST_WAIT)
    except ValueError:
        return 0.0
