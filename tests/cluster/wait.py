"""Waiting for a condition, never for a length of time."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.errors import ClusterError


def until(what: str, condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> None:
    """Return as soon as ``condition`` is true.

    Raises:
        ClusterError: it was still false (or raised OSError) after ``timeout`` seconds; the message names ``what``.
    """
    deadline = time.monotonic() + timeout
    last: OSError | None = None
    while True:
        try:
            last = None
            if condition():
                return
        except OSError as error:
            last = error
        if time.monotonic() >= deadline:
            raise ClusterError(f"waited {timeout:.0f} s for {what}" + (f" (last error: {last})" if last else ""))
        time.sleep(interval)
