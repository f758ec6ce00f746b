"""Building images without a container engine: buildah, on a base made from Debian packages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from cluster import packages
from cluster.commands import output
from cluster.paths import cache
from cluster.progress import stage

BASE = "serinus-base:bookworm"
# Raise the number when the recipe below changes.
RECIPE = "bookworm-1"
_SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "python3", "python3-venv", "python-is-python3")
_DOCUMENTATION = ("doc", "man", "locale", "info", "lintian", "bash-completion", "perl5")
_CACHES = ("var/log", "var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "debootstrap")
_SLIM = (*(f"usr/share/{name}" for name in _DOCUMENTATION), *_CACHES)


def build(context: Path, tag: str, archive: Path) -> None:
    """Build a Containerfile on the Debian base and write the image as a docker archive."""
    _ensure_base()
    _buildah(
        ["build", "--layers=false", "--format=docker", "--pull-never", "--timestamp=0", f"--build-arg=BASE={BASE}"],
        [f"--tag={tag}", f"--file={context / 'Containerfile'}", context],
    )
    _buildah(["push", "--quiet", tag, f"docker-archive:{archive}:{tag}"])
    # Every image is kept as its archive; here it would only take up space.
    _buildah(["rmi", "--force", tag])


def base() -> Path:
    """The archive of the base image, made with debootstrap when the cache has none."""
    packages.install(packages.IMAGES)
    target = cache() / "images" / f"base-{RECIPE}.tar"
    if not target.exists():
        with stage(f"build {BASE} from Debian packages"):
            root = cache() / "build" / "base"
            _remove_root(root)
            root.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            include = f"--include={','.join(_PACKAGES)}"
            output([packages.program("debootstrap"), "--variant=minbase", include, _SUITE, root], timeout=1800)
            _slim(root)
            _archive(root, target)
            _remove_root(root)
    return target


def _slim(root: Path) -> None:
    for name in _SLIM:
        shutil.rmtree(root / name, ignore_errors=True)
    for folder in root.glob("usr/**/__pycache__"):
        shutil.rmtree(folder)
    # apt fails without these two.
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/log").mkdir(exist_ok=True)


def _archive(root: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    container = _buildah(["from", "scratch"]).strip()
    try:
        _buildah(["add", "--quiet", container, root, "/"])
        _buildah(["config", "--cmd", "python3", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container])
        _buildah(["commit", "--quiet", "--format=docker", "--timestamp=0", container, BASE])
    finally:
        _buildah(["rm", container])
    _buildah(["push", "--quiet", BASE, f"docker-archive:{partial}:{BASE}"])
    partial.replace(target)


def _ensure_base() -> None:
    archive = base()
    if BASE not in _buildah(["images", "--format", "{{.Name}}:{{.Tag}}"]).replace("localhost/", "").split():
        _buildah(["pull", "--quiet", f"docker-archive:{archive}"])


def _remove_root(root: Path) -> None:
    """Remove a debootstrap folder, whose proc and sys a crash may have left mounted."""
    for name in ("proc", "sys", "dev/pts", "dev"):
        output(["umount", "--lazy", root / name], check=False)
    if root.exists():
        shutil.rmtree(root)


def _buildah(*groups: Sequence[str | Path]) -> str:
    storage = cache() / "buildah"
    storage.mkdir(parents=True, exist_ok=True)
    env = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    command: list[str | Path] = [packages.program("buildah"), "--root", storage / "root", "--runroot", storage / "run"]
    for group in groups:
        command += group
    return output(command, env=env, timeout=1800)
