"""Debian packages the node needs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.commands import SYSTEM_PATH, output
from cluster.errors import ClusterError
from cluster.paths import cache
from cluster.progress import say, stage

# Package -> a file that says it is installed.
NODE = {
    "etcd-server": "/usr/bin/etcd",
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "prometheus": "/usr/bin/prometheus",
    "busybox-static": "/bin/busybox",
    "iptables": "/usr/sbin/iptables",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/sbin/ip",
    "openssl": "/usr/bin/openssl",
}
IMAGES = {"buildah": "/usr/bin/buildah", "debootstrap": "/usr/sbin/debootstrap"}
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing(packages: dict[str, str]) -> list[str]:
    """The packages whose file is not there."""
    return [name for name, file in packages.items() if not Path(file).exists()]


def program(name: str) -> Path:
    """The path of an installed program, looked for in the system's folders only."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise ClusterError(f"{name} is not installed")
    return Path(found)


def install(packages: dict[str, str]) -> None:
    """Install what is missing, without recommended packages and without starting any service."""
    wanted = missing(packages)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"no apt-get here; install by hand what provides: {', '.join(packages[n] for n in wanted)}")
    if os.geteuid() != 0:
        raise ClusterError(f"not root; run as root: apt-get install --no-install-recommends {' '.join(wanted)}")
    say(f"installing Debian packages: {' '.join(wanted)}")
    with stage("apt-get"), _no_services():
        apt(["update"])
        apt(["install", "--yes", "--no-install-recommends", *wanted])
    if left := missing(packages):
        raise ClusterError(f"installed, but still not there: {', '.join(packages[name] for name in left)}")


def apt(arguments: Sequence[str]) -> None:
    """Run apt-get without questions, waiting for another one to end."""
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-q", *arguments]
    output(command, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=1800)


def unpacked(package: str, file: str) -> Path:
    """A program of a Debian package without installing it: for those who are not root."""
    folder = cache() / "packages" / package
    target = folder / file.lstrip("/")
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        output(["apt-get", "download", package], cwd=folder)
        for archive in folder.glob("*.deb"):
            output(["dpkg-deb", "--extract", archive, folder])
    return target


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    # invoke-rc.d asks this file; 101 means "do not start". A file that is already there is the machine's own rule.
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
