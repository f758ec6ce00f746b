"""`serinus-runtime pack`: one archive of a model directory, byte for byte the same for the same files.

Names in order, no times, no owners, no modes but 0644: only names and contents count, as they do for the digest. What
`fetch` unpacks from it has the digest that is printed.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import tarfile
from pathlib import Path

import msgspec

from serinus_runtime.commands.tell import Format, bytes_text
from serinus_runtime.digest import MANIFEST, UnsafeDirectoryError, digest_of_manifest, manifest
from serinus_runtime.failures import FailureError, Reason


def pack(directory: Path, out: Path) -> str:
    """Writes `out`, a .tar.gz, beside its name first and then renamed; returns the digest. Raises FailureError."""
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise FailureError(Reason.INVALID_CONFIG, f"{out}: name it .tar.gz, or `fetch` will not unpack it")
    if out.resolve().is_relative_to(directory.resolve()):
        raise FailureError(Reason.INVALID_CONFIG, f"{out} lies in the directory that is packed; put it elsewhere")
    part = out.with_name(f".{out.name}.part")
    try:
        text = manifest(directory)
        _write(directory, text, part)
        changed = manifest(directory) != text
        if text and not changed:
            part.replace(out)
    except (OSError, UnsafeDirectoryError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"cannot pack {directory} into {out}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    if not text:
        raise FailureError(Reason.INVALID_CONFIG, f"{directory} holds no files")
    if changed:
        raise FailureError(Reason.INVALID_CONFIG, f"{directory} changed while it was packed; try again")
    return digest_of_manifest(text)


def run(arguments: argparse.Namespace) -> int:
    """Packs and says what is to be written into a ModelDeployment."""
    digest = pack(arguments.directory, arguments.out)
    size = arguments.out.stat().st_size
    if arguments.output is Format.JSON:
        print(msgspec.json.encode({"file": str(arguments.out), "bytes": size, "digest": digest}).decode())
    else:
        print(f"{arguments.out}: {bytes_text(size)}\n{digest}")
    return 0


def _write(directory: Path, text: bytes, part: Path) -> None:
    # Level, no name, no time: what gzip and tar would say of the machine.
    with (
        part.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        _add(tar, MANIFEST, text)
        for line in text.splitlines():
            _add_file(tar, directory, _name(line))


def _name(line: bytes) -> str:
    """The path in a line of SHA256SUMS."""
    escaped = line.startswith(b"\\")
    name = line[1:][66:] if escaped else line[66:]
    return os.fsdecode(name.replace(b"\\\\", b"\\") if escaped else name)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, directory: Path, name: str) -> None:
    with (directory / name).open("rb") as file:
        info = tarfile.TarInfo(name)
        info.size = os.fstat(file.fileno()).st_size
        info.mode = 0o644
        tar.addfile(info, file)
