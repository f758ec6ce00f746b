"""PyTorch on the CPU, Java and TorchServe for tests and measurements: made once, in the cache, without being installed.

PyTorch's wheels on the package index bring gigabytes of CUDA, so torch comes from Debian 13: its packages are unpacked
into a folder of their own (250 MB to download, 1.1 GB unpacked) and run with the loader and the C library that lie
there, whatever Debian this machine has. Nobody needs to be root for that.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cluster.commands import output
from cluster.errors import ClusterError
from cluster.paths import cache
from cluster.progress import say, stage

# Raise the number when the recipe below changes.
RECIPE = "trixie-1"
SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("python3-torch", "libopenblas0-pthread", "openjdk-21-jre-headless", "python3-pil", "python3-psutil",
            "python3-packaging", "python3-yaml")  # fmt: skip
TORCHSERVE = ("torchserve==0.12.0", "torch-model-archiver==0.12.0")
_MACHINES = {"x86_64": ("x86_64-linux-gnu", "ld-linux-x86-64.so.2", "amd64"),
             "aarch64": ("aarch64-linux-gnu", "ld-linux-aarch64.so.1", "arm64")}  # fmt: skip
_UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/libtorch-test", "usr/share/perl")


@dataclass(frozen=True)
class TorchRoot:
    """The folder, and programs that run from it."""

    folder: Path

    @property
    def python(self) -> Path:
        """Python 3.13 with torch, numpy and what TorchServe needs."""
        return self.folder / "bin" / "python"

    @property
    def java(self) -> Path:
        """Java 21."""
        return self.folder / "bin" / "java"

    @property
    def torchserve(self) -> Path:
        """The folder that holds the package `ts` and its jar."""
        return self.folder / "opt" / "torchserve"


def ensure() -> TorchRoot:
    """Makes the root when the cache has none. Raises ClusterError."""
    root = TorchRoot(cache() / "torch" / RECIPE)
    if (root.folder / ".ready").exists():
        return root
    root.folder.parent.mkdir(parents=True, exist_ok=True)
    with root.folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root.folder / ".ready").exists():
            shutil.rmtree(root.folder, ignore_errors=True)
            _unpack_debian(root.folder)
            _unpack_torchserve(root.torchserve)
            _write_programs(root.folder)
            with stage("torch starts"):
                output([root.python, "-c", "import torch; torch.ones(2) @ torch.ones(2)"], timeout=300)
            (root.folder / ".ready").touch()
    return root


def _machine() -> tuple[str, str, str]:
    found = _MACHINES.get(platform.machine())
    if found is None:
        raise ClusterError(f"PyTorch for tests is known for {', '.join(_MACHINES)}, not for {platform.machine()}")
    return found


def _mirrors() -> list[tuple[str, str]]:
    """Address and suite of the other Debian's packages: from the mirrors that this machine takes its own from."""
    told = output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
    found: dict[str, str] = {}
    for line in told.splitlines():
        address, _, release = line.rpartition(" ")
        if release.endswith("-security"):
            found.setdefault(f"{SUITE}-security", address)
        elif release.isalpha():
            found.setdefault(SUITE, address)
    if SUITE not in found:
        raise ClusterError("PyTorch for tests comes from Debian: apt knows no mirror; add one to /etc/apt/sources.list")
    return [(address, suite) for suite, address in found.items()]


def _unpack_debian(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None or not KEYRING.is_file():
        raise ClusterError(f"PyTorch for tests comes from Debian: apt-get, dpkg-deb and {KEYRING} are needed")
    state = folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "etc"):
        (state / name).mkdir(parents=True)
    (state / "state" / "status").touch()
    (state / "etc" / "sources.list").write_text(
        "".join(f"deb [signed-by={KEYRING}] {address} {suite} main\n" for address, suite in _mirrors())
    )
    apt: list[str | Path] = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "Debug::NoLocking=1"]
    for key, value in {
        "Dir::Etc::sourcelist": state / "etc" / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": state / "state",
        "Dir::State::status": state / "state" / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": _machine()[2],
        "APT::Sandbox::User": "root",
    }.items():
        apt += ["-o", f"{key}={value}"]
    say(f"downloading from Debian {SUITE}: {' '.join(PACKAGES)} and what they need (about 250 MB)")
    with stage("download"):
        output([*apt, "update"])
        output([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES], timeout=1800)
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    archives = sorted((state / "cache" / "archives").glob("*.deb"))
    with stage(f"unpack {len(archives)} packages"):
        for archive in archives:
            output(["dpkg-deb", "--extract", archive, folder])
    for name in (*_UNUSED, "apt"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for test in (folder / "usr/lib/python3/dist-packages/torch/bin").glob("*test*"):
        test.unlink()


def _unpack_torchserve(folder: Path) -> None:
    wheels = folder.with_name("wheels")
    with stage(f"download {' '.join(TORCHSERVE)}"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        output([*command, "--dest", wheels, *TORCHSERVE], timeout=900)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    shutil.rmtree(wheels)


def _write_programs(folder: Path) -> None:
    triplet, loader, debian = _machine()
    libraries = folder / "usr" / "lib" / triplet
    java = folder / "usr" / "lib" / "jvm" / f"java-21-openjdk-{debian}"
    for link in [path for path in java.rglob("*") if path.is_symlink()]:
        # Absolute links would lead to this machine's own settings, or nowhere.
        target = folder / str(link.readlink()).lstrip("/")
        if link.readlink().is_absolute() and target.is_file():
            link.unlink()
            shutil.copy(target, link)
    paths = {
        "python": (folder / "usr/bin/python3.13", [libraries / "openblas-pthread", libraries, folder / "usr/lib"]),
        "java": (java / "bin" / "java", [libraries, java / "lib", java / "lib" / "server"]),
    }
    (folder / "bin").unlink()
    (folder / "bin").mkdir()
    for name, (program, path) in paths.items():
        script = folder / "bin" / name
        home = f"export PYTHONHOME={folder / 'usr'}\n" if name == "python" else ""
        # Java starts processes through a helper of its own, which this machine's loader cannot start.
        option = " -Djdk.lang.Process.launchMechanism=VFORK" if name == "java" else ""
        script.write_text(
            f"#!/bin/sh\n{home}exec {libraries / loader} --inhibit-cache --argv0 {script} "
            f'--library-path {":".join(map(str, path))} {program}{option} "$@"\n'
        )
        script.chmod(0o755)
