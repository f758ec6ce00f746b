"""From the bytes of an HTTP/1.1 connection to whole requests: limits, bodies, upgrades that are not taken."""

from __future__ import annotations

import time
from typing import Any

import httptools

from serinus_runtime.http.exchange import Exchange
from serinus_runtime.http.site import Site


class RefusedError(Exception):
    """The request is refused while it is still being read; the connection ends with this answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RequestReader:
    """The half of a connection that reads. The `on_...` methods are the parser's callbacks.

    The other half inherits from it and says what becomes of requests: `_begins`, `_send_continue`, `_whole` and
    `_offered`.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._parser: Any = None
        self._current: Exchange | None = None
        """The request that is being read."""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._raw_head_bytes = 0
        self._began = False
        self._in_head = True
        self._upgrade_body = -1
        """Bytes of body still to come behind an upgrade that we ignore; -1 when there is none."""
        self._expect_continue = False
        self._completed = 0
        self._last: Exchange | None = None
        """The newest request that is whole, kept only while the chunk that it came in is looked at."""

    # What the other half says.

    def _begins(self) -> Exchange | None:
        """A request begins; None: what comes is not read any more."""
        raise NotImplementedError

    def _send_continue(self) -> None:
        """The client waits to be told that it may send its body."""
        raise NotImplementedError

    def _whole(self, exchange: Exchange) -> None:
        """A request has been read."""
        raise NotImplementedError

    def _offered(self, rest: bytes) -> bool:
        """The newest request offers an upgrade. True: what comes behind it, `rest`, is taken, and not read here."""
        raise NotImplementedError

    # What httptools calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        current = self._begins()
        if current is None:
            return
        self._current = current
        self._head_bytes = 0
        self._raw_head_bytes = 0
        self._began = True
        self._in_head = True
        self._expect_continue = False

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        current = self._current
        if current is not None:
            current.target = current.target + url if current.target else url
            if len(current.target) > self._site.limits.head_bytes // 2:
                raise RefusedError(414, f"the target is longer than {self._site.limits.head_bytes // 2} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header; also trailers of chunked bodies, which are dropped."""
        current = self._current
        if current is None or not self._in_head:
            return
        headers = current.headers
        name = name.lower()
        self._head_bytes += len(name) + len(value) + 4
        limits = self._site.limits
        if self._head_bytes > limits.head_bytes or len(headers) >= limits.headers:
            raise RefusedError(431, f"at most {limits.headers} headers and {limits.head_bytes} bytes of them are taken")
        headers[name] = headers[name] + b", " + value if name in headers else value

    def on_headers_complete(self) -> None:
        """The head is there: refuse what can be refused now, before the body is read."""
        current = self._current
        if current is None:
            return
        self._in_head = False
        parser = self._parser
        headers = current.headers
        current.method = parser.get_method()
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._site.limits.body_bytes:
            raise self._too_large()
        version = parser.get_http_version()
        if version == "1.0":
            current.http_10 = True
            current.keep_alive_10 = parser.should_keep_alive()
            current.close = not current.keep_alive_10
        elif version != "1.1":
            raise RefusedError(505, f"HTTP/{version} is not spoken here: use HTTP/1.1")
        elif b"connection" in headers or parser.should_upgrade():
            current.close = b"close" in {token.strip() for token in headers.get(b"connection", b"").lower().split(b",")}
        if parser.should_upgrade():
            if current.method == b"CONNECT" or b"transfer-encoding" in headers:
                raise RefusedError(400, "the connection cannot be upgraded")
            self._upgrade_body = int(length or 0)
            current.upgrade = (
                self._upgrade_body == 0
                and version == "1.1"
                and current.method == b"GET"
                and headers.get(b"upgrade", b"").lower() == b"websocket"
            )
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                raise RefusedError(417, "only Expect: 100-continue is understood")
            if version == "1.1":
                self._expect_continue = True
                self._send_continue()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._current is None:
            return
        site = self._site
        self._body_bytes += len(body)
        site.received_bytes += len(body)
        if self._body_bytes > site.limits.body_bytes:
            raise self._too_large()
        if site.received_bytes > site.limits.receive_bytes:
            raise RefusedError(429, "too many large requests are being received: try again later")
        self._expect_continue = False
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._upgrade_body > 0:
            return
        current = self._current
        if current is None:
            return
        self._upgrade_body = -1
        self._completed += 1
        self._last = current
        self._current = None
        self._expect_continue = False
        body = self._body
        current.body = body[0] if len(body) == 1 else b"".join(body)
        self._forget_body()
        current.received = time.monotonic()
        self._whole(current)

    # Inside.

    def _feed(self, data: bytes) -> None:
        while True:
            if self._upgrade_body > 0:
                part, data = data[: self._upgrade_body], data[self._upgrade_body :]
                self._upgrade_body -= len(part)
                if part:
                    self.on_body(part)
                if self._upgrade_body > 0:
                    return
                self.on_message_complete()
            if not data:
                return
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The offer is declined by answering in HTTP/1.1; the parser has stopped at the end of the head.
                data = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                if self._offered(data):
                    return
                if self._upgrade_body <= 0 and not data:
                    return
            else:
                return

    def _forget_body(self) -> None:
        self._site.received_bytes -= self._body_bytes
        self._body_bytes = 0
        self._body = []

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the body is larger than {self._site.limits.body_bytes} bytes")
