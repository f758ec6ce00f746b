"""The checks of the door in their order: who it is, whether it may, how often, how urgent, how long it waits.

Knows nothing of HTTP or gRPC but headers (names in lower case) and a client's address, so both ask the same door.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serinus_runtime.ingress.deadlines import timeout_of
from serinus_runtime.ingress.keyfile import WatchedFile
from serinus_runtime.ingress.keys import Key, KeyRing, shown_key
from serinus_runtime.ingress.priorities import HIGHEST, priority_of, ticket_priority
from serinus_runtime.ingress.ratelimit import Bucket, Buckets, Rate, header_lines
from serinus_runtime.ingress.tokens import TokenError, Tokens
from serinus_runtime.problems import InvalidRequestError

ADDRESSES = 10_000
"""Clients without a key whose buckets are remembered."""
ANONYMOUS = "anonymous"
OTHERS = "others"
MAX_NAMES = 200
"""Clients that metrics tell apart; the rest are `others`."""
_CHALLENGE = b'www-authenticate: Bearer realm="serinus"\r\n'
_HOW = "send it as Authorization: Bearer KEY, or as X-API-Key: KEY"


class Admitted(msgspec.Struct, frozen=True):
    """A request that is let in."""

    client: str = ""
    """Name of its key; empty when keys are not asked for."""
    priority: int = 0
    """For the batcher's ticket: lower goes first."""
    deadline: float | None = None
    """On the clock of `now`."""
    headers: bytes = b""
    """Whole lines for the answer: how it stands with its limit."""
    best: int = HIGHEST
    """The best level that a priority in its body may ask for."""
    bucket: Bucket | None = None


class Refused(msgspec.Struct, frozen=True):
    """A request that is not. `status` is HTTP's, `reason` one of metrics.REJECTIONS; `headers` are whole lines."""

    reason: str
    status: int
    message: str
    headers: bytes = b""
    client: str = ""


_OPEN = Admitted()


class Door:
    """See the module's text. `keys`: who is known, None: everybody is let in. `rate`: for those without their own.

    `client_header` (lower case) names the header whose last entry is the client's address, where a gateway writes it.
    `best` is the best priority for those whose key does not say.
    """

    def __init__(
        self,
        *,
        keys: WatchedFile[KeyRing] | None = None,
        tokens: Tokens | None = None,
        rate: Rate | None = None,
        by_rows: bool = False,
        client_header: bytes = b"",
        best: int = HIGHEST,
    ) -> None:
        self.by_rows = by_rows
        self._keys = keys
        self._tokens = tokens
        self._rate = rate
        self._client_header = client_header
        self._best = best
        # Addresses come and go; they must not push the buckets of keys out.
        self._key_buckets = Buckets(size=100_000)
        self._address_buckets = Buckets(size=ADDRESSES)
        self._counts: dict[tuple[str, str], int] = {}
        self._names: set[str] = set()

    @property
    def asks_for_keys(self) -> bool:
        """True when clients need a key."""
        return self._keys is not None or self._tokens is not None

    @property
    def counts_clients(self) -> bool:
        """True when there is anything to tell per client."""
        return self.asks_for_keys or self._rate is not None

    def refresh(self) -> None:
        """Looks whether the keys have changed. Call it about once a second."""
        if self._keys is not None:
            self._keys.refresh()
        if self._tokens is not None:
            self._tokens.refresh()

    def admit(
        self, headers: Mapping[bytes, bytes], address: str, now: float, scope: str = "infer"
    ) -> Admitted | Refused:
        """Lets a request of `address` that arrived at `now` in, or says why not."""
        client, best = "", self._best
        key: Key | None = None
        if self.asks_for_keys:
            found = self._identify(headers, scope)
            if isinstance(found, Refused):
                self._count(found.client or ANONYMOUS, found.reason)
                return found
            key, client = found, found.name
            best = key.priority if key.priority is not None else best
        try:
            timeout = timeout_of(headers)
            priority = ticket_priority(priority_of(headers), best)
        except InvalidRequestError as error:
            return Refused("invalid", 400, str(error), client=client)
        deadline = now + timeout if timeout is not None else None
        if not self.counts_clients:
            if timeout is None and not priority:
                return _OPEN
            return Admitted(priority=priority, deadline=deadline, best=best)
        rate = key.rate if key is not None and key.rate is not None else self._rate
        lines, bucket = b"", None
        if rate is not None:
            bucket = self._bucket(client, headers, address, rate, now)
            standing = bucket.take(now)
            lines = header_lines(rate, standing)
            if not standing.allowed:
                self._count(client or ANONYMOUS, "rate_limited")
                return Refused("rate_limited", 429, _too_often(rate), lines, client)
        self._count(client or ANONYMOUS, "admitted")
        return Admitted(client, priority, deadline, lines, best, bucket if self.by_rows else None)

    def who(self, headers: Mapping[bytes, bytes], scope: str) -> Key | Refused | None:
        """Whose key a request shows that costs nothing; None where keys are not asked for."""
        return self._identify(headers, scope) if self.asks_for_keys else None

    def may(self, headers: Mapping[bytes, bytes], scope: str) -> Refused | None:
        """Whether a request that costs nothing may be answered: None, or why not."""
        if not self.asks_for_keys:
            return None
        key = self._identify(headers, scope)
        return key if isinstance(key, Refused) else None

    def _identify(self, headers: Mapping[bytes, bytes], scope: str) -> Key | Refused:
        shown = shown_key(headers)
        if not shown:
            if self._keys is None:
                return Refused(
                    "unauthenticated", 401, "a token is needed: send it as Authorization: Bearer TOKEN", _CHALLENGE
                )
            return Refused("unauthenticated", 401, f"an API key is needed: {_HOW}", _CHALLENGE)
        if self._tokens is not None and (self._keys is None or self._tokens.looks_like_one(shown)):
            try:
                key = self._tokens.check(shown)
            except TokenError as error:
                if error.later:
                    return Refused("not_ready", 503, str(error), b"retry-after: 1\r\n")
                lines = _CHALLENGE[:-2] + b', error="invalid_token"\r\n'
                return Refused("unauthenticated", 401, str(error), lines)
            return self._scoped(key, scope)
        assert self._keys is not None
        known = self._keys.value.find(shown)
        if known is None:
            lines = _CHALLENGE[:-2] + b', error="invalid_token"\r\n'
            return Refused("unauthenticated", 401, f"the API key is not known here: {_HOW}", lines)
        return self._scoped(known, scope)

    def _scoped(self, key: Key, scope: str) -> Key | Refused:
        if scope not in key.scopes:
            lines = _CHALLENGE[:-2] + b', error="insufficient_scope", scope="%b"\r\n' % scope.encode()
            text = f"the key of {key.name!r} is not good for {scope!r}; it is for {', '.join(sorted(key.scopes))}"
            return Refused("forbidden", 403, text, lines, key.name)
        return key

    def _bucket(self, client: str, headers: Mapping[bytes, bytes], address: str, rate: Rate, now: float) -> Bucket:
        if client:
            return self._key_buckets.of(client, rate, now)
        if self._client_header and (told := headers.get(self._client_header)):
            # A proxy appends what it saw itself; what stands before that is the client's own word.
            address = told.rpartition(b",")[2].strip()[:64].decode("latin-1")
        return self._address_buckets.of(address, rate, now)

    def _count(self, client: str, outcome: str) -> None:
        if client not in self._names:
            if len(self._names) >= MAX_NAMES:
                client = OTHERS
            else:
                self._names.add(client)
        key = (client, outcome)
        self._counts[key] = self._counts.get(key, 0) + 1

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """What is counted per client, with the labels that all metrics have."""
        if not self.counts_clients:
            return
        family = CounterMetricFamily(
            "serinus_client_requests", "Inference requests at the door, by client", labels=[*names, "client", "outcome"]
        )
        for (client, outcome), count in self._counts.items():
            family.add_metric([*values, client, outcome], count)
        yield family
        buckets = GaugeMetricFamily("serinus_rate_limit_buckets", "Clients whose rate is remembered", labels=names)
        buckets.add_metric(values, len(self._key_buckets) + len(self._address_buckets))
        yield buckets
        if self._tokens is not None:
            yield from self._tokens.collect(names, values)
        if self._keys is not None:
            known = GaugeMetricFamily("serinus_api_keys", "API keys that are known", labels=names)
            known.add_metric(values, len(self._keys.value))
            yield known
            reloads = CounterMetricFamily(
                "serinus_api_keys_reloads", "Changes of the file of keys, by outcome", labels=[*names, "outcome"]
            )
            reloads.add_metric([*values, "ok"], self._keys.reloads)
            reloads.add_metric([*values, "failed"], self._keys.failures)
            yield reloads


def _too_often(rate: Rate) -> str:
    return f"too many requests: at most {rate.per_second:g} per second on average and {rate.burst} at once"
