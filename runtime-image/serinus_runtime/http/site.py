"""What the connections of one port share: limits, headers of every answer, the sweep for slow clients."""

from __future__ import annotations

import os
import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from serinus_runtime.fast import numbered
from serinus_runtime.http.exchange import Application
from serinus_runtime.http.heads import Heads
from serinus_runtime.http.limits import Limits
from serinus_runtime.http.streaming import Successor

if TYPE_CHECKING:
    from serinus_runtime.http.protocol import HttpProtocol

_SANE_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Site:
    """Shared by the connections of one port. Call `sweep` about once a second."""

    def __init__(self, application: Application, limits: Limits, common_headers: bytes = b"") -> None:
        self.application = application
        self.limits = limits
        self.connections: set[HttpProtocol | Successor] = set()
        self.received_bytes = 0
        """Bytes of bodies that are not whole yet."""
        self.heads = Heads(limits.body_bytes)
        self.closing = False
        """True: every answer says `Connection: close`."""
        self._common = common_headers
        self._ids = 0
        self._prefix = os.urandom(6).hex().encode() + b"-"
        self._date = 0
        self.headers = b""
        self.sweep(time.monotonic())

    def set_common_headers(self, common: bytes) -> None:
        """Sets the header lines of every answer from now on."""
        self._common = common
        self._date = 0
        self.sweep(time.monotonic())

    def request_id(self, given: bytes | None) -> bytes:
        """The client's request id if it is sane, else a new one."""
        if given is not None and _SANE_ID.fullmatch(given):
            return given
        self._ids += 1
        return numbered(self._prefix, self._ids)

    def sweep(self, now: float) -> None:
        """Ends what has been slow for too long, and brings the Date header up to date."""
        wall = int(time.time())
        if wall != self._date:
            self._date = wall
            self.headers = self._common + b"date: " + formatdate(wall, usegmt=True).encode() + b"\r\n"
        for connection in [each for each in self.connections if each.deadline <= now]:
            connection.on_deadline()

    def close_idle(self) -> None:
        """Closes connections that have no request under way."""
        for connection in list(self.connections):
            connection.close_if_idle()


def header_line(name: str, value: str) -> bytes:
    """A header line; what must not be in a header value is replaced by '?'."""
    clean = "".join(char if " " <= char <= "~" else "?" for char in value).strip()
    return f"{name}: {clean}\r\n".encode("ascii")
