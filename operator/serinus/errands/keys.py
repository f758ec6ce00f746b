"""The API key that the operator shows the pods of a ModelDeployment which ask for one.

The operator reads no Secret through the API. Whoever installs it may mount one secret text; each ModelDeployment has a
key of its own derived from it, so that a pod which is shown its key learns nothing about another's:

    serinus-HEX, HEX being HMAC-SHA256(secret, "NAMESPACE/NAME") in hex.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

Key = tuple[str, str]


def derived(secret: bytes, owner: Key) -> str:
    """The key for a ModelDeployment (namespace, name)."""
    return "serinus-" + hmac.new(secret, "/".join(owner).encode(), hashlib.sha256).hexdigest()


def from_file(path: Path | None) -> Callable[[Key], str | None]:
    """Keys derived from the text in a file, read each time because a mounted Secret changes; None without a file."""

    def key(owner: Key) -> str | None:
        if path is None:
            return None
        try:
            secret = path.read_bytes().strip()
        except OSError:
            return None
        return derived(secret, owner) if secret else None

    return key
