"""The digest of a model directory, as Serinus defines it and as coreutils can compute it.

`SHA256SUMS` lists every regular file except itself, sorted by path in byte order, in the format of `sha256sum`; the
digest is the SHA-256 of that list.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SUMS_NAME = "SHA256SUMS"


def sums(directory: Path) -> bytes:
    """The content that `SHA256SUMS` has, or should have, for this directory."""
    files = {p.relative_to(directory).as_posix(): p for p in directory.rglob("*") if p.is_file()}
    files.pop(SUMS_NAME, None)
    lines = (
        f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(files, key=lambda name: name.encode())
    )
    return "".join(lines).encode()


def digest(directory: Path) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(sums(directory)).hexdigest()


def write_sums(directory: Path) -> str:
    """Writes `SHA256SUMS` into the directory and returns the digest."""
    content = sums(directory)
    (directory / SUMS_NAME).write_bytes(content)
    return "sha256:" + hashlib.sha256(content).hexdigest()


def with_one_character_changed(value: str) -> str:
    """The same digest with its last character different: what a slip of copy and paste looks like."""
    return value[:-1] + ("0" if value[-1] != "0" else "1")
