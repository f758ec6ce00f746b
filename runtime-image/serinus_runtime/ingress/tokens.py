"""Who a JSON Web Token (RFC 7519) says its bearer is: signature, issuer, audience, time, and what is remembered of it.

PyJWT and cryptography (the extra `jwt`) check signatures; they are imported only where tokens are asked for. Only
algorithms with a public key are taken, and a key only for its own family, so that no key can pass as a secret.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.ingress.keys import CONTROL, Key

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
SCOPES = frozenset(("infer", "async", "read"))
"""What a token is good for; the metrics port is not for clients."""
_CONTROL_CLAIM = "serinus:control"
"""A word of the claim `scope` (RFC 9068) that makes it good for `control` as well."""
PREFIX = "jwt:"
"""Before the subject, so that no token can take the name of an API key."""
_SUBJECT = re.compile(r"[A-Za-z0-9._:@|/+=-]{1,128}", re.ASCII)
_LONGEST = 8192
_REMEMBERED = 10_000
_LEEWAY = 30.0
"""Seconds by which clocks may differ."""
_NOT_YET = "the issuer's keys are not known yet: try again"


class TokenError(Exception):
    """The token is not accepted; the text says why, and holds nothing of it. `later`: it may be in a moment."""

    def __init__(self, text: str, *, later: bool = False) -> None:
        super().__init__(text)
        self.later = later


class SigningKey(msgspec.Struct, frozen=True):
    """A public key. `algorithm`: the only one that it is for; empty: any of its family (`kind`: RSA, EC, OKP)."""

    key: Any
    kind: str
    algorithm: str
    text: bytes
    """Of its entry in the set."""


class KeySource(Protocol):
    """Where the issuer's keys come from."""

    @property
    def keys(self) -> Mapping[str, SigningKey]:
        """By their id; empty while none are known."""

    @property
    def version(self) -> int:
        """Another number whenever `keys` is another set."""

    @property
    def failures(self) -> int:
        """How often they could not be read again."""

    def refresh(self, now: float) -> None:
        """Called about once a second, with time.monotonic. Must not block."""

    def missed(self, now: float) -> None:
        """Somebody has shown a key id that is not known: there may be new keys."""


class _Known(msgspec.Struct, frozen=True, gc=False):
    key: Key
    until: float
    """When the token is over, in seconds since 1970."""


class Tokens:
    """Checks tokens of one issuer. `wall` is the time since 1970, `clock` one that only goes forward."""

    def __init__(
        self,
        source: KeySource,
        *,
        issuer: str,
        audiences: Sequence[str],
        algorithms: Sequence[str],
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        try:
            import jwt
        except ModuleNotFoundError:
            raise FailureError(
                Reason.INVALID_CONFIG, "SERINUS_JWT_JWKS: needs pip install serinus-runtime[jwt]"
            ) from None
        self._jwt: Any = jwt
        self._source = source
        self._issuer = issuer
        self._audiences = list(audiences)
        self._algorithms = list(algorithms)
        self._wall = wall
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._version = source.version
        self._counts = {"checked": 0, "remembered": 0, "refused": 0}

    @staticmethod
    def looks_like_one(shown: bytes) -> bool:
        """Whether this can be a token at all; API keys are other texts."""
        return shown[:2] == b"ey" and shown.count(b".") == 2

    def refresh(self) -> None:
        """Called about once a second."""
        self._source.refresh(self._clock())

    def check(self, shown: bytes) -> Key:
        """Whose token this is. Raises TokenError."""
        if self._version != self._source.version:
            # A key that was withdrawn takes its tokens with it.
            self._known.clear()
            self._version = self._source.version
        digest = hashlib.sha256(shown).digest()
        now = self._wall()
        known = self._known.get(digest)
        if known is not None and now < known.until:
            self._known.move_to_end(digest)
            self._counts["remembered"] += 1
            return known.key
        try:
            found = self._checked(shown, digest, now)
        except TokenError:
            self._counts["refused"] += 1
            raise
        self._counts["checked"] += 1
        self._known[digest] = found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found.key

    def _checked(self, shown: bytes, digest: bytes, now: float) -> _Known:
        if len(shown) > _LONGEST:
            raise TokenError(f"the token is longer than {_LONGEST} bytes")
        jwt = self._jwt
        try:
            head = jwt.get_unverified_header(shown)
            if head.get("alg") not in self._algorithms:
                raise TokenError(f"the token's algorithm is not one of {', '.join(self._algorithms)}")
            claims = jwt.decode(
                shown,
                self._key(head.get("kid"), head["alg"]),
                algorithms=self._algorithms,
                audience=self._audiences,
                issuer=self._issuer,
                # Times are looked at below, on a clock that tests can turn.
                options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False, "verify_nbf": False,
                         "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidIssuerError:
            raise TokenError("the token is from another issuer") from None
        except jwt.InvalidAudienceError:
            raise TokenError("the token is for another audience") from None
        except jwt.MissingRequiredClaimError as error:
            raise TokenError(f"the token has no {error.claim!r}") from None
        except jwt.InvalidSignatureError:
            raise TokenError("the token's signature is wrong") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise TokenError("the token cannot be read") from None
        until = _time(claims, "exp", 0.0) + _LEEWAY
        if now >= until:
            raise TokenError("the token has expired")
        if max(_time(claims, "nbf", 0.0), _time(claims, "iat", 0.0)) > now + _LEEWAY:
            raise TokenError("the token is not valid yet")
        subject = claims["sub"]
        if not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
            raise TokenError("the token's subject must be 1 to 128 of A-Za-z0-9._:@|/+=-")
        words = claims.get("scope")
        controls = isinstance(words, str) and _CONTROL_CLAIM in words.split()
        scopes = SCOPES | {CONTROL} if controls else SCOPES
        return _Known(Key(name=PREFIX + subject, digest=digest, scopes=scopes), until)

    def _key(self, number: object, algorithm: str) -> Any:
        keys = self._source.keys
        if not keys:
            raise TokenError(_NOT_YET, later=True)
        found = keys.get(number) if isinstance(number, str) else None
        if number is None and len(keys) == 1:
            (found,) = keys.values()
        if found is None:
            self._source.missed(self._clock())
            raise TokenError("the token is signed with a key that the issuer does not show")
        if _FAMILIES[algorithm[:2]] != found.kind or found.algorithm not in ("", algorithm):
            raise TokenError("the token's algorithm is not that of its key")
        return found.key

    def collect(self, names: Sequence[str], values: Sequence[str]) -> Iterable[Metric]:
        """Counts, with the labels that all metrics have."""
        keys = GaugeMetricFamily("serinus_jwt_keys", "Keys of the tokens' issuer that are known", labels=names)
        keys.add_metric(values, len(self._source.keys))
        yield keys
        failed = CounterMetricFamily("serinus_jwt_key_failures", "Times that they could not be read", labels=names)
        failed.add_metric(values, self._source.failures)
        yield failed
        counted = CounterMetricFamily("serinus_jwt_tokens", "Tokens by outcome", labels=[*names, "outcome"])
        for outcome, count in self._counts.items():
            counted.add_metric([*values, outcome], count)
        yield counted


def _time(claims: Mapping[str, Any], name: str, default: float) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise TokenError(f"the token's {name!r} is not a time")
    return float(value)
