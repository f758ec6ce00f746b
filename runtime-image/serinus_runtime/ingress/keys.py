"""API keys: who may ask for what. A mounted Secret holds them; what it held is kept as hashes only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from serinus_runtime.ingress.ratelimit import Rate, parse_rate

SCOPES = ("infer", "async", "read", "metrics")
"""What a key is good for that does not say: predictions, jobs, metadata and documents, the metrics port."""
CONTROL = "control"
"""To load and unload the model; only for a key that says so."""
MAX_FILE_BYTES = 4 << 20
MAX_KEYS = 10_000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_MIN_LENGTH = 8
_LINE = "NAME KEY [scopes=infer,read] [rate=100/s] [burst=200] [priority=1]"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A client that is known."""

    name: str
    digest: bytes
    """sha256 of the key."""
    scopes: frozenset[str] = frozenset(SCOPES)
    rate: Rate | None = None
    """Its own limit; None: the default."""
    priority: int | None = None
    """The best priority that it may ask for; None: the default."""


class KeyRing:
    """Keys by what clients show."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.digest: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def names(self) -> list[str]:
        """The clients' names."""
        return sorted({key.name for key in self._keys.values()})

    def find(self, shown: bytes) -> Key | None:
        """The key of which `shown` is the text. What the time of this tells is about hashes, not about keys."""
        digest = hashlib.sha256(shown).digest()
        found = self._keys.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None


def shown_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key that a request shows: `Authorization: Bearer KEY` or `X-API-Key: KEY`; names of headers in lower case."""
    given = headers.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        return given[7:].strip()
    return headers.get(b"x-api-key")


def read_keys(path: Path) -> KeyRing:
    """The keys in the file `path`. Raises ValueError, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the file has more than {MAX_FILE_BYTES} bytes: split the clients over several deployments")
    return KeyRing(parse_keys(data))


def parse_keys(data: bytes) -> list[Key]:
    """The keys in `data`: lines, or JSON. Raises ValueError that says which entry is wrong and never shows a key."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8 text") from None
    entries = _from_json(text) if text.lstrip()[:1] in ("[", "{") else _from_lines(text)
    keys: dict[bytes, Key] = {}
    for where, entry in entries:
        key = _key(where, entry)
        if key.digest in keys:
            raise ValueError(f"{where}: the same key is given twice, first to {keys[key.digest].name!r}")
        keys[key.digest] = key
    if not keys:
        raise ValueError(f"the file holds no key: write one line per client, {_LINE}")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"the file holds {len(keys)} keys: at most {MAX_KEYS} are taken")
    return list(keys.values())


def _from_lines(text: str) -> Iterable[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2 or "=" in words[0]:
            raise ValueError(f"line {number}: write {_LINE}")
        entry: dict[str, Any] = {"name": words[0], "key": words[1]}
        for word in words[2:]:
            name, equals, value = word.partition("=")
            if not equals or name not in ("scopes", "rate", "burst", "priority") or name in entry:
                raise ValueError(f"line {number}: option {name[:20]!r} is unknown or given twice; write {_LINE}")
            entry[name] = value.split(",") if name == "scopes" else value
        if (burst := entry.pop("burst", None)) is not None:
            if "rate" not in entry:
                raise ValueError(f"line {number}: burst needs a rate: write rate=100/s burst={burst[:9]}")
            entry["rate"] = f"{entry['rate']} burst {burst}"
        yield f"line {number}", entry


def _from_json(text: str) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        told: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the file begins like JSON, but is not: {error}") from None
    entries = told.get("keys") if isinstance(told, dict) else told
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError('the JSON must be a list of keys, or {"keys": [...]}: {"name": "shop", "key": "..."}')
    for index, entry in enumerate(entries):
        if unknown := set(entry) - {"name", "key", "sha256", "scopes", "rate", "priority"}:
            raise ValueError(
                f"key {index}: {min(unknown)[:40]!r} is unknown; there are name, key or sha256, scopes, rate, priority"
            )
        if "sha256" in entry:
            if "key" in entry:
                raise ValueError(f"key {index}: give key or sha256, not both")
            entry = {**entry, "key": f"sha256:{str(entry['sha256']).removeprefix('sha256:')}"}
        yield f"key {index}", entry


def _key(where: str, entry: Mapping[str, Any]) -> Key:
    name, text, rate, priority = (entry.get(field) for field in ("name", "key", "rate", "priority"))
    scopes = entry.get("scopes", list(SCOPES))
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError(f"{where}: the name must be letters, digits, '.', '_' and '-', at most 63 of them")
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{where}: the key of {name!r} must be printable ASCII without spaces")
    if text.startswith("sha256:"):
        if _HASH.fullmatch(text) is None:
            raise ValueError(f"{where}: the hash of {name!r} must be sha256: and 64 lower-case hex digits")
        digest = bytes.fromhex(text[7:])
    elif len(text) < _MIN_LENGTH:
        raise ValueError(
            f"{where}: the key of {name!r} is shorter than {_MIN_LENGTH}: make one with openssl rand -hex 24"
        )
    else:
        digest = hashlib.sha256(text.encode()).digest()
    if not isinstance(scopes, list) or not scopes or not all(scope in (*SCOPES, CONTROL) for scope in scopes):
        raise ValueError(f"{where}: the scopes of {name!r} must be some of {', '.join((*SCOPES, CONTROL))}")
    try:
        limit = parse_rate(str(rate)) if rate is not None else None
    except ValueError as error:
        raise ValueError(f"{where}: the rate of {name!r}: {error}") from None
    if priority is not None and str(priority) not in tuple("123456789"):
        raise ValueError(f"{where}: the priority of {name!r} must be from 1, the highest, to 9")
    return Key(
        name=name,
        digest=digest,
        scopes=frozenset(scopes),
        rate=limit,
        priority=int(priority) if priority is not None else None,
    )
