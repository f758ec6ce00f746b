"""One command at a time for one cluster."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.paths import run_folder
from cluster.progress import say


@contextmanager
def locked(provider: str) -> Iterator[None]:
    """Hold the cluster's lock; the kernel gives it back when the holder dies."""
    file = run_folder(provider).with_suffix(".lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another command is working on the cluster {provider}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
