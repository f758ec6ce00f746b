"""Lines on stderr that say what is happening, how long it took and how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_started = time.monotonic()


def say(text: str) -> None:
    """Print one line, stamped with the seconds since this program began; safe to call from any thread."""
    with _lock:
        print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a piece of work and print its duration when it ends, well or badly."""
    began = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"{name}: failed after {time.monotonic() - began:.1f} s")
        raise
    say(f"{name}: {time.monotonic() - began:.1f} s")
