"""The keys of a tokens' issuer: a JSON Web Key Set (RFC 7517) in a file or at an address, read again as it changes."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

from serinus_runtime import logs
from serinus_runtime.ingress.keyfile import WatchedFile
from serinus_runtime.ingress.tokens import SigningKey

MAX_BYTES = 1 << 20
MAX_KEYS = 100
_SECONDS = 5.0
"""For one answer."""
_AGAIN = 10.0
"""After a failure, or a key id that is not known."""
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_LOCAL = ("localhost", "127.0.0.1", "::1")


def parse(data: bytes) -> dict[str, SigningKey]:
    """The signing keys in a set, by id. Raises ValueError. What is not for signatures is left out."""
    import jwt

    try:
        told = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set: {error}") from None
    entries = told.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"a JSON Web Key Set has a list `keys` of at most {MAX_KEYS}")
    found: dict[str, SigningKey] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use") == "enc":
            continue
        try:
            key = jwt.PyJWK({name: value for name, value in entry.items() if name != "d"})
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if key.key_type == "RSA" and key.key.key_size < 2048:
            continue
        declared = str(entry.get("alg") or _CURVES.get(str(entry.get("crv")), ""))
        found[str(entry.get("kid", ""))] = SigningKey(key.key, entry["kty"], declared, msgspec.json.encode(entry))
    if not found:
        raise ValueError("there is no key in it that signatures can be checked with")
    return found


def check_address(text: str) -> str:
    """Where a set is: the absolute path of a file, https://, or http:// on this machine. Raises ValueError."""
    if text.startswith("/"):
        return text
    parts = urlsplit(text)
    if not parts.hostname or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ValueError(f"{text!r} is not a place for keys: write the path of a file, or https://HOST/PATH")
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise ValueError(f"{text!r}: keys that come without TLS prove nothing: write https://")
    return text


class FileSource:
    """A set in a file. Raises ValueError, OSError."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, _read)
        self.version = 0

    @property
    def keys(self) -> Mapping[str, SigningKey]:
        """See `tokens.KeySource`."""
        return self._file.value

    @property
    def failures(self) -> int:
        """See `tokens.KeySource`."""
        return self._file.failures

    def refresh(self, now: float) -> None:
        """See `tokens.KeySource`."""
        self.version += self._file.refresh()

    def missed(self, now: float) -> None:
        """The file is looked at every second as it is."""


class UrlSource:
    """A set at an address, read every `every` seconds on a thread of its own; what was read last stays until then."""

    def __init__(self, url: str, every: float, fetch: Callable[[str], bytes] | None = None) -> None:
        self.keys: Mapping[str, SigningKey] = {}
        self.version = 0
        self.failures = 0
        self._url = url
        self._every = every
        self._fetch = fetch or _fetch
        self._due = 0.0
        self._asked = -_AGAIN
        self._thread: threading.Thread | None = None

    def refresh(self, now: float) -> None:
        """See `tokens.KeySource`."""
        if now >= self._due and (self._thread is None or not self._thread.is_alive()):
            self._asked = now
            self._due = now + self._every
            self._thread = threading.Thread(target=self._work, name="serinus-jwks", daemon=True)
            self._thread.start()

    def missed(self, now: float) -> None:
        """See `tokens.KeySource`. Not more often than every ten seconds, whatever clients show."""
        self._due = min(self._due, max(self._asked + _AGAIN, now))

    def wait(self, seconds: float) -> None:
        """Until what is under way is done."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        try:
            keys = parse(self._fetch(self._url))
        except (OSError, ValueError, HTTPException) as error:
            self.failures += 1
            self._due = time.monotonic() + min(_AGAIN, self._every)
            logs.event("error", "the keys of the tokens' issuer cannot be read", url=self._url, error=str(error)[:300])
            return
        if {name: key.text for name, key in keys.items()} != {name: key.text for name, key in self.keys.items()}:
            self.keys = keys
            self.version += 1


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _fetch(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    with opener.open(url, timeout=_SECONDS) as answer:
        data: bytes = answer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return data


def _read(path: Path) -> dict[str, SigningKey]:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file has more than {MAX_BYTES} bytes")
    return parse(data)
