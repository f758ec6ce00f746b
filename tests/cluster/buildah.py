"""Building images without a container engine: buildah, on a base made from Debian packages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import packages
from cluster.commands import output
from cluster.paths import cache
from cluster.progress import stage

_DOCUMENTATION = ("doc", "man", "locale", "info", "lintian", "bash-completion", "perl5")
_CACHES = ("var/log", "var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "debootstrap")
_SLIM = (*(f"usr/share/{name}" for name in _DOCUMENTATION), *_CACHES)


@dataclass(frozen=True)
class Base:
    """A root file system of Debian packages that images are built on."""

    tag: str
    recipe: str
    """Raise its number when something below changes."""
    suite: str
    packages: tuple[str, ...]
    more: tuple[str, ...] = ()
    """Packages that apt installs, since debootstrap cannot find what they need."""
    unused: tuple[str, ...] = ()
    """Patterns of files that nothing in the image uses."""


BASES = {
    "bookworm": Base(
        "serinus-base:bookworm",
        "bookworm-1",
        "bookworm",
        ("ca-certificates", "python3", "python3-venv", "python-is-python3"),
    ),
    "torch": Base(
        "serinus-base:torch",
        "trixie-torch-1",
        "trixie",
        ("ca-certificates", "python3", "python3-venv"),
        ("python3-torch", "libopenblas0-pthread", "openjdk-21-jre-headless", "python3-pil", "python3-psutil",
         "python3-packaging", "python3-yaml"),
        # Tests of torch, and what a plug-in for AMD's processors brings, which openmpi's transport looks for and lacks.
        ("usr/lib/libtorch-test", "usr/lib/python3/dist-packages/torch/bin/*test*", "usr/lib/*/libLLVM*",
         "usr/lib/*/libamd_comgr*", "usr/lib/*/libamdhip64*", "usr/lib/*/ucx/*rocm*", "usr/lib/jvm/*/lib/src.zip"),
    ),
}  # fmt: skip


def builder(base: Base) -> Callable[[Path, str, Path], None]:
    """What builds a Containerfile on `base` and writes the image as a docker archive."""

    def build(context: Path, tag: str, archive: Path) -> None:
        _ensure(base)
        _buildah(
            ["build", "--layers=false", "--format=docker", "--pull-never", "--timestamp=0"],
            [f"--build-arg=BASE={base.tag}", f"--tag={tag}", f"--file={context / 'Containerfile'}", context],
        )
        _buildah(["push", "--quiet", tag, f"docker-archive:{archive}:{tag}"])
        # Every image is kept as its archive; here it would only take up space.
        _buildah(["rmi", "--force", tag])

    return build


def base(wanted: Base) -> Path:
    """The archive of a base image, made with debootstrap when the cache has none."""
    packages.install(packages.IMAGES)
    target = cache() / "images" / f"base-{wanted.recipe}.tar"
    if not target.exists():
        with stage(f"build {wanted.tag} from Debian packages"):
            root = cache() / "build" / f"base-{wanted.suite}"
            _remove_root(root)
            root.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            include = f"--include={','.join(wanted.packages)}"
            output([packages.program("debootstrap"), "--variant=minbase", include, wanted.suite, root], timeout=1800)
            if wanted.more:
                _install(root, wanted.more)
            _slim(root, wanted.unused)
            _archive(root, target, wanted.tag)
            _remove_root(root)
    return target


def _install(root: Path, names: Sequence[str]) -> None:
    """Install packages inside `root`, which borrows this machine's name resolution for it."""
    resolver = root / "etc" / "resolv.conf"
    resolver.write_bytes(Path("/etc/resolv.conf").read_bytes())
    apt: list[str | Path] = ["chroot", root, "apt-get", "-q", "-o", "Acquire::Retries=3"]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    # Java's install scripts run Java, which finds itself there.
    output(["mount", "-t", "proc", "proc", root / "proc"])
    try:
        output([*apt, "update"], env=environment)
        with stage(f"install {' '.join(names)}"):
            output([*apt, "install", "--yes", "--no-install-recommends", *names], env=environment, timeout=1800)
    finally:
        resolver.unlink()
        output(["umount", "--lazy", root / "proc"])


def _slim(root: Path, unused: Sequence[str] = ()) -> None:
    for name in _SLIM:
        shutil.rmtree(root / name, ignore_errors=True)
    for pattern in unused:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for folder in root.glob("usr/**/__pycache__"):
        shutil.rmtree(folder)
    # apt fails without these two.
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/log").mkdir(exist_ok=True)


def _archive(root: Path, target: Path, tag: str) -> None:
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    container = _buildah(["from", "scratch"]).strip()
    try:
        _buildah(["add", "--quiet", container, root, "/"])
        _buildah(["config", "--cmd", "python3", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container])
        _buildah(["commit", "--quiet", "--format=docker", "--timestamp=0", container, tag])
    finally:
        _buildah(["rm", container])
    _buildah(["push", "--quiet", tag, f"docker-archive:{partial}:{tag}"])
    partial.replace(target)


def _ensure(wanted: Base) -> None:
    archive = base(wanted)
    if wanted.tag not in _buildah(["images", "--format", "{{.Name}}:{{.Tag}}"]).replace("localhost/", "").split():
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
