"""Unpacks tar and zip archives that nobody has vouched for yet: nothing is written outside, nothing without bounds."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_FILES = 10_000
_CHUNK = 1 << 20


class ArchiveError(ValueError):
    """The archive is damaged, or holds what must not be unpacked."""


class Budget:
    """Bounds what is written, counted as it is written: what an archive says about itself is not believed."""

    def __init__(self, max_bytes: int) -> None:
        self._bytes = self._max_bytes = max_bytes
        self._files = MAX_FILES

    def file(self) -> None:
        """One more file. Raises ArchiveError when there are too many."""
        self._files -= 1
        if self._files < 0:
            raise ArchiveError(f"more than {MAX_FILES} files")

    def take(self, size: int) -> None:
        """`size` more bytes. Raises ArchiveError when there are too many."""
        self._bytes -= size
        if self._bytes < 0:
            raise ArchiveError(f"more than {self._max_bytes} bytes (SERINUS_MAX_MODEL_BYTES)")


def is_archive(path: str) -> bool:
    """Whether the name is one of an archive that `unpack` understands."""
    return path.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path, max_bytes: int) -> None:
    """Unpacks the regular files of `archive` into the new directory `into`.

    Links, devices, absolute paths and `..` are refused. Raises ArchiveError, or OSError when writing fails.
    """
    into.mkdir(parents=True)
    budget = Budget(max_bytes)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, into, budget)
        else:
            _untar(archive, into, budget)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(f"it is damaged or no archive: {error}") from error


def relative_path(name: str) -> PurePosixPath:
    """`name` as a path below a directory. Raises ArchiveError when it would leave it."""
    path = PurePosixPath(name)
    unsafe = name.startswith("/") or "\\" in name or not path.parts or ".." in path.parts
    if unsafe or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise ArchiveError(f"{name!r} would be written outside the model directory, or is not a file name")
    return path


def flatten(directory: Path) -> Path:
    """The only sub-directory of `directory` when there is nothing else in it (`tar czf m.tgz model/`), else itself."""
    entries = list(directory.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else directory


def _untar(archive: Path, into: Path, budget: Budget) -> None:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg():
                raise ArchiveError(f"{member.name!r} is a link or a device; pack plain files")
            source = tar.extractfile(member)
            assert source is not None
            _write(source, into, member.name, budget)


def _unzip(archive: Path, into: Path, budget: Budget) -> None:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ArchiveError(f"{info.filename!r} is a link or a device; pack plain files")
            with packed.open(info) as source:
                _write(source, into, info.filename, budget)


def _write(source: IO[bytes], into: Path, name: str, budget: Budget) -> None:
    target = into / relative_path(name)
    budget.file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            copy(source.read, file, budget.take)
    except (FileExistsError, NotADirectoryError) as error:
        raise ArchiveError(f"{name!r} is there twice") from error


def copy(read: Callable[[int], bytes], file: IO[bytes], seen: Callable[[int], None]) -> None:
    """Copies chunk by chunk; `seen` is told the size of each before it is written, and may raise."""
    while chunk := read(_CHUNK):
        seen(len(chunk))
        file.write(chunk)


def remove(path: Path) -> None:
    """Removes a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
