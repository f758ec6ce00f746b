"""A wheel of the runtime's own package: compiled where there is a compiler, plain Python where there is none.

python -m cluster package      # the folder of the unpacked wheel, to be put on PYTHONPATH
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from cluster import packages
from cluster.commands import output
from cluster.paths import REPOSITORY, cache
from cluster.progress import say, stage

SOURCE = REPOSITORY / "runtime-image"
_PYTHON = (3, 11)
"""Of the image. What is compiled for another one is not looked at there."""
_IGNORED = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "build", "dist", "wheels", "wheel", ".*")
_NOT_CODE = ("README.md", "Containerfile")
_KEPT = 4


def recipe() -> str:
    """How a wheel is made on this machine; wheels of different recipes differ."""
    if sys.version_info[:2] != _PYTHON:
        return "python"
    missing = packages.missing(_compiler())
    if missing and (os.geteuid() != 0 or shutil.which("apt-get") is None):
        return "python"
    return f"mypyc {metadata.version('mypy')}"


def wheel() -> Path:
    """A folder that holds the wheel and nothing else, made when the cache has none of these sources."""
    return _made("wheel")


def unpacked() -> Path:
    """The wheel as a folder to be put on the path."""
    return _made("site")


def _made(name: str) -> Path:
    made = recipe()
    target = cache() / "runtime-wheels" / _digest(made)
    if not (target / "site").exists():
        _make(made, target)
        _forget(target.parent)
    target.touch()
    return target / name


def _make(made: str, target: Path) -> None:
    environment = {}
    if made != "python":
        packages.install(_compiler())
        environment["SERINUS_COMPILE"] = "1"
    else:
        say("no C compiler, or not Python 3.11: the runtime's package is not compiled")
    target.parent.mkdir(parents=True, exist_ok=True)
    with stage("build the runtime's package"), tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch)
        shutil.copytree(SOURCE, folder / "source", ignore=_IGNORED)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        output([*command, "--wheel-dir", folder / "wheel", folder / "source"], env=environment, timeout=1200)
        (built,) = (folder / "wheel").iterdir()
        with zipfile.ZipFile(built) as archive:
            archive.extractall(folder / "site")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        (folder / "wheel").rename(target / "wheel")
        (folder / "site").rename(target / "site")


def _compiler() -> dict[str, str]:
    """Debian package -> a file that says it is there."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return {"gcc": "/usr/bin/gcc", "libc6-dev": "/usr/include/stdio.h", "python3-dev": str(headers)}


def _digest(made: str) -> str:
    state = hashlib.sha256(f"{made}\n{sys.version}\n".encode())
    for file in _files(SOURCE):
        if file.name in _NOT_CODE:
            continue
        content = file.read_bytes()
        state.update(f"{file.relative_to(SOURCE)}\n{len(content)}\n".encode() + content)
    return state.hexdigest()[:20]


def _files(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir())
    ignored = _IGNORED(str(folder), [entry.name for entry in entries])
    for entry in entries:
        if entry.name not in ignored:
            if entry.is_dir():
                yield from _files(entry)
            elif entry.is_file():
                yield entry


def _forget(folder: Path) -> None:
    found = sorted(folder.glob("?" * 20), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in found[_KEPT:]:
        shutil.rmtree(old)
