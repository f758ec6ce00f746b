"""`serinus-runtime pack`: one archive of a model directory, byte for byte the same for the same files.

Names in order, no times, no owners, no modes but 0644: only names and contents count, as they do for the digest. What
`fetch` unpacks from it has the digest that is printed. `manifest.json`, which says what was packed and with what, is
written into the archive only: the directory may be served, and its digest pinned.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from serinus_runtime import __version__
from serinus_runtime.commands.model import opened
from serinus_runtime.commands.tell import Format, bytes_text
from serinus_runtime.config import version_name
from serinus_runtime.digest import MANIFEST, UnsafeDirectoryError, digest_of_manifest, manifest
from serinus_runtime.drift import reference
from serinus_runtime.failures import FailureError, Reason
from serinus_runtime.modelmanifest import FILE, FORMAT, Manifest, SignatureOf, encode, of_another
from serinus_runtime.predictionlog import preprocessing_hash

_THEIRS = (
    f"the directory holds a {FILE} that pack did not write: it is packed as it is, and nothing describes the model; "
    "rename or remove it, unless the model needs it"
)


class Packed(msgspec.Struct, omit_defaults=True):
    """What `pack` tells; also its JSON."""

    file: str
    bytes: int
    digest: str
    manifest: Manifest | None = None
    warnings: list[str] = []


def pack(directory: Path, out: Path, version: str = "") -> Packed:
    """Writes `out`, a .tar.gz, beside its name first and then renamed. Raises FailureError.

    `version`: what manifest.json is to call the model. A model that cannot be opened is packed without its signature.
    """
    if not out.name.endswith((".tar.gz", ".tgz")):
        raise FailureError(Reason.INVALID_CONFIG, f"{out}: name it .tar.gz, or `fetch` will not unpack it")
    if out.resolve().is_relative_to(directory.resolve()):
        raise FailureError(Reason.INVALID_CONFIG, f"{out} lies in the directory that is packed; put it elsewhere")
    part = out.with_name(f".{out.name}.part")
    try:
        sums = manifest(directory)
        theirs = of_another(directory)
        if not any(theirs or _name(line) != FILE for line in sums.splitlines()):
            raise FailureError(Reason.INVALID_CONFIG, f"{directory} holds no files")
        described, warnings = (None, [_THEIRS]) if theirs else describe(directory, version)
        made = {} if described is None else {FILE: encode(described)}
        text = _with(sums, made)
        _write(directory, text, made, part)
        if manifest(directory) != sums:
            raise FailureError(Reason.INVALID_CONFIG, f"{directory} changed while it was packed; try again")
        part.replace(out)
        size = out.stat().st_size
    except (OSError, UnsafeDirectoryError) as error:
        raise FailureError(Reason.INVALID_CONFIG, f"cannot pack {directory} into {out}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return Packed(str(out), size, digest_of_manifest(text), described, warnings)


def describe(directory: Path, version: str = "") -> tuple[Manifest, list[str]]:
    """The manifest of the model in `directory`, and why something is left out. Raises OSError."""
    runtime, signature, warnings = f"serinus-runtime-{__version__}", None, []
    try:
        with opened(directory) as model:
            runtime += f" {model.engine.runtime}"
            signature = SignatureOf(model.signature.inputs, model.signature.outputs)
    except FailureError as failure:
        warnings.append(f"{FILE} is written without the signature, as the model cannot be opened: {failure.message}")
    hashes = preprocessing_hash(directory), reference_hash(directory)
    return Manifest(FORMAT, runtime, version, *hashes, signature), warnings


def reference_hash(directory: Path) -> str:
    """`sha256:` and hex of reference.json; empty where there is none. Raises OSError."""
    path = directory / reference.FILE
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def run(arguments: argparse.Namespace) -> int:
    """Packs and says what is to be written into a ModelDeployment."""
    version: str | None = arguments.model_version
    if version is not None:
        try:
            if not version:
                raise ValueError("it is empty; write a version, or leave the flag out")  # noqa: TRY301
            version_name(version)
        except ValueError as error:
            raise FailureError(Reason.INVALID_CONFIG, f"--model-version: {error}") from error
    packed = pack(arguments.directory, arguments.out, version or "")
    if arguments.output is Format.JSON:
        print(msgspec.json.encode(packed).decode())
    else:
        print(f"{packed.file}: {bytes_text(packed.bytes)}\n{packed.digest}")
        for text in packed.warnings:
            print(f"warning: {text}")
    return 0


def _with(sums: bytes, made: Mapping[str, bytes]) -> bytes:
    """`sums`, a SHA256SUMS text, with the files `made`, whose names need no escape, in their places."""
    lines = {os.fsencode(_name(line)): line for line in sums.splitlines()}
    for name, data in made.items():
        lines[name.encode()] = f"{hashlib.sha256(data).hexdigest()}  {name}".encode()
    return b"".join(lines[name] + b"\n" for name in sorted(lines))


def _write(directory: Path, text: bytes, made: Mapping[str, bytes], part: Path) -> None:
    # Level, no name, no time: what gzip and tar would say of the machine.
    with (
        part.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        _add(tar, MANIFEST, text)
        for name in map(_name, text.splitlines()):
            if name in made:
                _add(tar, name, made[name])
            else:
                _add_file(tar, directory, name)


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
