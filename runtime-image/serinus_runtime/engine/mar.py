"""TorchServe's model archives: zip files with a manifest, unpacked as carefully as what comes from a stranger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from serinus_runtime import archives
from serinus_runtime.failures import FailureError, Reason

MANIFEST = "MAR-INF/MANIFEST.json"
_MAX_MANIFEST = 1 << 20


class Archive(msgspec.Struct, frozen=True):
    """An unpacked archive."""

    directory: Path
    handler: str
    """A Python file of the archive, with or without `:function`, or the name of a handler that TorchServe brings."""
    manifest: dict[str, Any]


def only(directory: Path) -> Path:
    """The one archive at the top of `directory`. Raises FailureError."""
    found = sorted(directory.glob("*.mar"))
    if len(found) != 1:
        raise FailureError(
            Reason.MODEL_LOAD_FAILED,
            f"{directory} holds {len(found)} files *.mar; a model directory holds one (torch-model-archiver makes it)",
        )
    return found[0]


def unpack(archive: Path, into: Path, max_bytes: int) -> Archive:
    """Unpacks `archive` into the new directory `into`. Raises FailureError(MODEL_LOAD_FAILED)."""
    try:
        archives.unpack(archive, into, max_bytes)
        manifest = _manifest(into)
    except (archives.ArchiveError, OSError) as error:
        raise FailureError(Reason.MODEL_LOAD_FAILED, f"{archive.name} cannot be unpacked: {error}") from error
    handler = manifest["model"].get("handler")
    if not isinstance(handler, str) or not handler:
        raise FailureError(Reason.MODEL_LOAD_FAILED, f"{archive.name}: {MANIFEST} names no model.handler")
    return Archive(into, handler, manifest)


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        raise archives.ArchiveError(f"it has no {MANIFEST}; make it with torch-model-archiver")
    if path.stat().st_size > _MAX_MANIFEST:
        raise archives.ArchiveError(f"{MANIFEST} is larger than {_MAX_MANIFEST} bytes")
    try:
        told = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise archives.ArchiveError(f"{MANIFEST} is no JSON object: {error}") from error
    if not isinstance(told.get("model"), dict):
        raise archives.ArchiveError(f"{MANIFEST} has no object model")
    for key in ("serializedFile", "modelFile", "configFile", "requirementsFile"):
        value = told["model"].get(key)
        if value is not None and (not isinstance(value, str) or (value and len(Path(value).parts) != 1)):
            raise archives.ArchiveError(f"{MANIFEST}: model.{key} must be the name of a file in the archive")
    return told
