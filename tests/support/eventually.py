"""Waiting for something to become true, by looking instead of by sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Errors of a system that is still settling: they are tried again, and the last one is what the test fails with.
SETTLING = (AssertionError, OSError, LookupError)


def eventually(
    assertion: Callable[[], T],
    timeout: float = 120.0,
    interval: float = 0.2,
    errors: tuple[type[Exception], ...] = SETTLING,
) -> T:
    """Call ``assertion`` until it raises none of ``errors``, and return what it returns.

    The first call comes at once. When ``timeout`` seconds have passed the last error is raised as it was, so a failing
    test shows what was still wrong and not only that time ran out.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return assertion()
        except errors as error:
            if time.monotonic() >= deadline:
                error.add_note(f"still so after {timeout:.0f} s")
                raise
        time.sleep(interval)
