"""The project's own images: built from their Containerfile, cached by what goes into them."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import wheel
from cluster.commands import output
from cluster.errors import ClusterError
from cluster.paths import REPOSITORY, cache
from cluster.progress import stage

# What a Containerfile is built with: its folder, the image's name and the archive to write.
Builder = Callable[[Path, str, Path], None]
_IGNORED = shutil.ignore_patterns(
    "__pycache__", "*.pyc", "*.so", "wheels", "wheel", "build", "dist", "*.egg-info", ".*"
)
_KEPT = 3


@dataclass(frozen=True)
class Image:
    """One image: the folder with its Containerfile and the lock file of its Python packages."""

    name: str
    context: Path
    lock: Path
    package: bool = False
    """True when the image gets a wheel of its own package beside those of the lock file."""
    containerfile: str = "Containerfile"
    base: str = "bookworm"
    """What it is built on where there is no container engine; see `buildah.BASES`."""
    python: str = "3.11"
    """The base's Python, for which packages are downloaded."""
    pins: tuple[Path, ...] = ()
    """More requirement files with hashes, whose packages the Containerfile finds in wheels/ too."""

    @property
    def tag(self) -> str:
        """The image's name for docker and Kubernetes."""
        return f"serinus-{self.name}:dev"

    def digest(self, salt: str) -> str:
        """A digest of everything that goes into the image; ``salt`` stands for the base and the builder."""
        if not (self.context / self.containerfile).exists() or not self.lock.exists():
            raise ClusterError(f"image {self.name} needs {self.context / self.containerfile} and {self.lock}")
        state = hashlib.sha256(f"{self.tag}\n{salt}\n".encode())
        if self.package:
            state.update(f"{wheel.recipe()}\n".encode())
        for file in [self.lock, *files(self.context)]:
            name = file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file
            content = file.read_bytes()
            state.update(f"{name}\n{file.stat().st_mode & 0o111}\n{len(content)}\n".encode() + content)
        return state.hexdigest()[:20]


IMAGES = {
    "runtime": Image(
        "runtime", REPOSITORY / "runtime-image", REPOSITORY / "requirements" / "runtime.lock", package=True
    ),
    "runtime-torch": Image(
        "runtime-torch",
        REPOSITORY / "runtime-image",
        REPOSITORY / "requirements" / "runtime.lock",
        containerfile="Containerfile.torch",
        base="torch",
        python="3.13",
        pins=(REPOSITORY / "runtime-image" / "torchserve.txt",),
    ),
    "operator": Image("operator", REPOSITORY / "operator", REPOSITORY / "requirements" / "operator.lock"),
}


def get(name: str) -> Image:
    """The image called ``name``."""
    if name not in IMAGES:
        raise ClusterError(f"no image called {name}; known: {', '.join(IMAGES)}")
    return IMAGES[name]


def files(folder: Path) -> Iterator[Path]:
    """The files of a build context in a fixed order, without caches and hidden files."""
    entries = sorted(folder.iterdir())
    ignored = _IGNORED(str(folder), [entry.name for entry in entries])
    for entry in entries:
        if entry.name not in ignored:
            if entry.is_dir():
                yield from files(entry)
            elif entry.is_file():
                yield entry


def archive(image: Image, builder: Builder, salt: str) -> Path:
    """The docker archive of an image, built if the cache has none of this content."""
    folder = cache() / "images"
    target = folder / f"{image.name}-{image.digest(salt)}.tar"
    if not target.exists():
        with stage(f"build {image.tag}"):
            context = cache() / "build" / image.name
            shutil.rmtree(context, ignore_errors=True)
            shutil.copytree(image.context, context, ignore=_IGNORED)
            shutil.copy(image.context / image.containerfile, context / "Containerfile")
            shutil.copy(image.lock, context / "requirements.lock")
            for lock in (image.lock, *image.pins):
                found = wheels(lock, image.python)
                shutil.copytree(found, context / "wheels", copy_function=_link, dirs_exist_ok=True)
            if image.package:
                shutil.copytree(wheel.wheel(), context / "wheel")
            folder.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            builder(context, image.tag, partial)
            partial.replace(target)
            shutil.rmtree(context)
        _forget(folder, image.name)
    target.touch()
    return target


def wheels(lock: Path, python: str = "3.11") -> Path:
    """The packages that a lock file names, for that Python on Debian, in the cache."""
    state = lock.read_bytes() + (b"" if python == "3.11" else python.encode())
    target = cache() / "wheels" / f"{lock.stem}-{hashlib.sha256(state).hexdigest()[:20]}"
    if not target.exists():
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--require-hashes",
            "--no-deps",
        ]
        command += ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
        command += [f"--platform={name}" for name in platforms(platform.machine())]
        with stage(f"download packages of {lock.name}"):
            output([*command, "--dest", partial, "--requirement", lock], timeout=1200)
        partial.replace(target)
    return target


def platforms(machine: str) -> list[str]:
    """The wheel platforms that run on Debian 12 (glibc 2.36), newest first."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    return [*(f"manylinux_2_{minor}_{machine}" for minor in range(36, 4, -1)), f"manylinux2014_{machine}"]


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def _forget(folder: Path, name: str) -> None:
    """Keep only the newest archives of an image."""
    found = sorted(folder.glob(f"{name}-*.tar"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in found[_KEPT:]:
        old.unlink()
