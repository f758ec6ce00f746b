"""Token buckets: how many requests a client may send, on average and at once.

A bucket holds at most `burst` tokens and gains `per_second` of them every second. Whoever finds at least one is let in
and takes what it costs, at the price of a debt when that is more than there was: a request of a thousand rows is never
starved, yet its client pays for all of them before it is let in again.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Hashable

import msgspec

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*/\s*(s|m|h|d)(?:\s+burst\s+(\d{1,9}))?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Rate(msgspec.Struct, frozen=True):
    """`per_second` on average, `burst` at once."""

    per_second: float
    burst: int

    @property
    def window(self) -> int:
        """Whole seconds in which an empty bucket fills."""
        return max(1, math.ceil(self.burst / self.per_second))


def parse_rate(text: str) -> Rate:
    """The rate in `100/s`, `10/m burst 50`; without a burst it is what the rate names. Raises ValueError."""
    found = _RATE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0 or (found[3] is not None and int(found[3]) < 1):
        raise ValueError(
            f"{text!r} is not a rate: write a number above 0, / and s, m, h or d, and perhaps how many at once, such "
            "as 100/s burst 200"
        )
    number = float(found[1])
    return Rate(number / _SECONDS[found[2]], int(found[3]) if found[3] else max(1, math.ceil(number)))


class Standing(msgspec.Struct, frozen=True):
    """How a client stands with its bucket after a request."""

    allowed: bool
    remaining: int
    """Requests of cost 1 that would be let in at once."""
    reset: float
    """Seconds until the bucket is full."""
    retry_after: float
    """Seconds until a request is let in again; 0 when it was."""


class Bucket:
    """One client's tokens. Times are seconds on any clock; one that goes back adds nothing."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float, cost: float = 1.0) -> Standing:
        """Asks for `cost` tokens."""
        rate = self.rate
        if now > self._at:
            self._tokens = min(float(rate.burst), self._tokens + (now - self._at) * rate.per_second)
            self._at = now
        # A token that is there but for rounding is there: clients come back exactly when they were told to.
        allowed = self._tokens >= 1.0 - 1e-9
        if allowed:
            self._tokens -= cost
        tokens = self._tokens
        return Standing(
            allowed,
            max(0, math.floor(tokens + 1e-9)),
            (rate.burst - tokens) / rate.per_second,
            0.0 if allowed else (1.0 - tokens) / rate.per_second,
        )

    def charge(self, cost: float) -> None:
        """Takes `cost` more from one that was let in."""
        self._tokens -= cost


class Buckets:
    """Buckets by client, at most `size`: the one that was used longest ago is forgotten, and would be full again."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, client: Hashable, rate: Rate, now: float) -> Bucket:
        """The bucket of `client`; a new one when its rate was changed."""
        bucket = self._buckets.get(client)
        if bucket is not None and bucket.rate == rate:
            self._buckets.move_to_end(client)
            return bucket
        bucket = self._buckets[client] = Bucket(rate, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return bucket


def header_lines(rate: Rate, standing: Standing) -> bytes:
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), and `Retry-After` for refusals."""
    lines = b'ratelimit-policy: "requests";q=%d;w=%d\r\nratelimit: "requests";r=%d;t=%d\r\n' % (
        rate.burst, rate.window, standing.remaining, math.ceil(standing.reset - 1e-6),
    )  # fmt: skip
    if standing.allowed:
        return lines
    return lines + b"retry-after: %d\r\n" % max(1, math.ceil(standing.retry_after - 1e-6))
