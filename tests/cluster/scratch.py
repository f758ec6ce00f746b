"""Container images made of nothing but files: an archive that docker and containerd load, written without either."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.commands import output
from cluster.errors import ClusterError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class ScratchImage:
    """An image of one layer: files by their path in the image, links, and what to run."""

    name: str
    entrypoint: Sequence[str]
    files: Mapping[str, Path]
    links: Mapping[str, str] = field(default_factory=dict)
    user: str = "65532:65532"

    def write(self, archive: Path) -> None:
        """Write the image as a docker archive; the same input gives the same bytes."""
        layer = self._layer()
        digest = hashlib.sha256(layer).hexdigest()
        config = json.dumps(
            {
                "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": {
                    "Entrypoint": list(self.entrypoint),
                    "User": self.user,
                    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
                },
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
        ).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = json.dumps([{"Config": config_name, "RepoTags": [self.name], "Layers": [f"{digest}.tar"]}]).encode()
        archive.parent.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(".partial")
        with tarfile.open(partial, "w") as tar:
            for name, content in ((f"{digest}.tar", layer), (config_name, config), ("manifest.json", manifest)):
                _add(tar, tarfile.TarInfo(name), content)
        partial.replace(archive)

    def _layer(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for folder in _parents([*self.files, *self.links, "tmp/x"]):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
            for target, source in sorted(self.files.items()):
                entry = tarfile.TarInfo(target)
                entry.mode = 0o755
                _add(tar, entry, source.read_bytes())
            for target, link in sorted(self.links.items()):
                entry = tarfile.TarInfo(target)
                entry.type, entry.linkname = tarfile.SYMTYPE, link
                tar.addfile(entry)
        return buffer.getvalue()


def _add(tar: tarfile.TarFile, entry: tarfile.TarInfo, content: bytes) -> None:
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _parents(paths: Sequence[str]) -> list[str]:
    """Every folder that the paths need, outer ones first."""
    return sorted({str(parent) for path in paths for parent in Path(path).parents} - {"."})


def libraries(binary: Path) -> dict[str, Path]:
    """The shared libraries (and the loader) that a program needs, by their path in the image."""
    found: dict[str, Path] = {}
    for line in output(["ldd", binary]).splitlines():
        words = line.split()
        if "not found" in line:
            raise ClusterError(f"{binary} needs {words[0]}, which this machine lacks")
        path = next((word for word in words if word.startswith("/")), None)
        if path is not None:
            found[path.lstrip("/")] = Path(path)
    return found
