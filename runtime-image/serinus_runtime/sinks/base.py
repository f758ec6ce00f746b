"""The interface between the prediction log and what takes its lines."""

from __future__ import annotations

import threading
from collections.abc import Sequence


class Stopping:
    """Tells a sink that waits that the process is ending, and until when it may still try."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def asked(self) -> bool:
        """True once the process is ending."""
        return self._event.is_set()

    def ask(self) -> None:
        """Ends every wait."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Waits, at most until the process ends; True when it does."""
        return self._event.wait(seconds)


class Sink:
    """Takes lines. All methods are called on one thread, the log's own, and may block there.

    Everything that waits is bounded: a sink that is slow or away makes the log's queue full, and lines are dropped
    there.
    """

    batch_bytes = 64 << 10
    """Lines are handed over joined up to about this size."""
    gather_seconds = 0.05
    """How long lines are gathered before they are handed over."""

    def __init__(self) -> None:
        self.written = 0
        """Lines that arrived."""
        self.failed = 0
        """Lines that did not, for good."""

    def write(self, lines: Sequence[bytes], stopping: Stopping) -> None:
        """Takes lines, each with its newline, and counts them now or later. Raises OSError, with the lines counted as
        failed, when there is something that people should know."""
        raise NotImplementedError

    def write_blocks(self, blocks: Sequence[bytes | bytearray], lines: int, stopping: Stopping) -> None:
        """`write` for `lines` lines of which several may be in one block."""
        self.write([line for block in blocks for line in bytes(block).splitlines(keepends=True)], stopping)

    def close(self, patience: float) -> None:
        """Gives what is on its way `patience` seconds, counts the rest as failed, and lets go of everything."""
