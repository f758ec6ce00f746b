"""Standard output, and files that are appended to and put aside when they are large."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serinus_runtime.sinks.base import Sink, Stopping

_REOPEN_SECONDS = 1.0


class StdoutSink(Sink):
    """Standard output."""

    def write(self, lines: Sequence[bytes], stopping: Stopping) -> None:
        """Writes; raises OSError when nobody reads any more."""
        _write(self, 1, lines, len(lines))

    def write_blocks(self, blocks: Sequence[bytes | bytearray], lines: int, stopping: Stopping) -> None:
        """See `write`."""
        _write(self, 1, blocks, lines)


class FileSink(Sink):
    """Appends to `path`; made anew when it was moved away (logrotate needs no signal).

    Beyond `max_bytes` (0: never) the file is put aside as `path.1`, what was there as `path.2`, and so on; `keep` of
    them stay. A line is never split between two files. Two processes may append to one file; only one may rotate it.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = 0, keep: int = 5, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._now = now
        self._file: int | None = None
        self._size = 0
        self._checked = -1e9

    def write(self, lines: Sequence[bytes], stopping: Stopping) -> None:
        """Writes, and rotates first when the lines would make the file too large. Raises OSError."""
        self.write_blocks(lines, len(lines), stopping)

    def write_blocks(self, blocks: Sequence[bytes | bytearray], lines: int, stopping: Stopping) -> None:
        """See `write`."""
        try:
            file = self._open()
            size = sum(map(len, blocks))
            if self._max_bytes and self._size and self._size + size > self._max_bytes:
                self._rotate()
                file = self._open()
        except OSError:
            self.failed += lines
            raise
        self._size += size
        _write(self, file, blocks, lines)

    def close(self, patience: float) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        now = self._now()
        if self._file is not None and now - self._checked < _REOPEN_SECONDS:
            return self._file
        self._checked = now
        if self._file is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(self._path.stat(), os.fstat(self._file)):
                    return self._file
            os.close(self._file)
            self._file = None
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._file).st_size
        return self._file

    def _rotate(self) -> None:
        self.close(0)
        if not self._keep:
            self._path.unlink(missing_ok=True)
            return
        for number in range(self._keep - 1, 0, -1):
            aside = self._aside(number)
            if aside.exists():
                aside.replace(self._aside(number + 1))
        self._path.replace(self._aside(1))

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _write(sink: Sink, file: int, blocks: Sequence[bytes | bytearray], lines: int) -> None:
    view = memoryview(blocks[0] if len(blocks) == 1 else b"".join(blocks))
    try:
        while view:
            view = view[os.write(file, view) :]
    except OSError:
        sink.failed += lines
        raise
    sink.written += lines
