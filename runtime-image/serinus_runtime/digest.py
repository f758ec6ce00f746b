"""The digest of a model directory, defined so that coreutils can compute it.

find . -type f ! -name SHA256SUMS -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from serinus_runtime.failures import FailureError, Reason

MANIFEST = "SHA256SUMS"
_CHUNK = 1 << 20


class UnsafeDirectoryError(ValueError):
    """The directory holds something whose content the digest could not vouch for."""


def manifest(directory: Path) -> bytes:
    """The SHA256SUMS text of `directory`, whether or not it holds such a file. Streams: memory does not grow with it.

    Raises UnsafeDirectoryError for symbolic links, devices and the like, names with control characters, SHA256SUMS
    files below the top, and a file `-` at the top, by which sha256sum means its standard input; OSError when something
    cannot be read.
    """
    root = os.fsencode(directory)
    lines = []
    for path in sorted(_files(root, b"")):
        marker, name = (b"\\", path.replace(b"\\", b"\\\\")) if b"\\" in path else (b"", path)
        lines.append(marker + _hash(root + b"/" + path).encode() + b"  " + name + b"\n")
    return b"".join(lines)


def digest_of_manifest(text: bytes) -> str:
    """The digest that belongs to a SHA256SUMS text: `sha256:` and hex."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def compute_digest(directory: Path) -> str:
    """The digest of `directory`; raises as `manifest` does."""
    return digest_of_manifest(manifest(directory))


def verify(directory: Path, expected: str) -> str:
    """The digest of `directory`, which must be `expected` unless that is empty.

    Raises FailureError: DIGEST_MISMATCH, or MODEL_LOAD_FAILED when the directory cannot be read or is unsafe.
    """
    if not directory.is_dir():
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"the model directory {directory} does not exist; run `serinus-runtime fetch` first, or use --model-dir",
        )
    try:
        found = compute_digest(directory)
    except (OSError, UnsafeDirectoryError) as error:
        raise FailureError(Reason.MODEL_LOAD_FAILED, f"cannot read the model directory {directory}: {error}") from error
    if expected and found != expected:
        raise mismatch(expected, found, str(directory))
    return found


def mismatch(expected: str, found: str, where: str) -> FailureError:
    """The failure for a directory or a source whose digest is not the pinned one."""
    return FailureError(
        Reason.DIGEST_MISMATCH,
        f"the model in {where} is not the one that was pinned: expected {expected}, got {found}; if the files are "
        f"right, set spec.model.digest to the second value, else restore them",
    )


def _files(root: bytes, below: bytes) -> Iterator[bytes]:
    with os.scandir(root + b"/" + below) as entries:
        for entry in entries:
            path = below + b"/" + entry.name if below else entry.name
            shown = os.fsdecode(path)
            if any(byte < 32 or byte == 127 for byte in entry.name):
                raise UnsafeDirectoryError(f"{shown!r} has a control character in its name; rename it")
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from _files(root, path)
            elif not stat.S_ISREG(mode):
                raise UnsafeDirectoryError(
                    f"{shown!r} is not a regular file (links are refused); put the file itself there"
                )
            elif path == b"-":
                raise UnsafeDirectoryError("a file named '-' means standard input to sha256sum; rename it")
            elif entry.name != MANIFEST.encode():
                yield path
            elif below:
                raise UnsafeDirectoryError(
                    f"{shown!r}: a {MANIFEST} below the top is not covered by the digest; remove it"
                )


def _hash(path: bytes) -> str:
    sha = hashlib.sha256()
    # O_NOFOLLOW: what scandir saw as a file must not have become a link since.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()
