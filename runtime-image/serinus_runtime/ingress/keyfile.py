"""A file of keys that is read again when it changes.

Kubernetes changes a mounted Secret by turning a symbolic link to a new directory, so what the link leads to is looked
at: device, inode, time and size. A file that has become wrong, or is gone, changes nothing but a counter and the log.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from serinus_runtime import logs

_T = TypeVar("_T")


class WatchedFile(Generic[_T]):
    """What `read` makes of the file `path`; `refresh` about once a second. `__init__` raises what `read` raises."""

    def __init__(self, path: Path, read: Callable[[Path], _T]) -> None:
        self.reloads = 0
        self.failures = 0
        self._path = path
        self._read = read
        self._seen = self._look()
        self.value = read(path)

    def refresh(self) -> bool:
        """Reads the file again if it is another one now. True when `value` is new."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.value = self._read(self._path)
        except (OSError, ValueError) as error:
            self.failures += 1
            logs.event("error", "a changed file is not used", path=str(self._path), error=str(error)[:300])
            return False
        self.reloads += 1
        logs.event("info", "a changed file was read", path=str(self._path))
        return True

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
