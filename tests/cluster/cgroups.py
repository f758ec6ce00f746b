"""The control group that all pods of the node live in: making it, and ending everything inside."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from cluster.settings import CGROUP
from cluster.wait import until

_ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The places where our group lies: one with cgroup v2, one per controller with v1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT / CGROUP]
    return [folder / CGROUP for folder in sorted(_ROOT.iterdir()) if folder.is_dir() and not folder.is_symlink()]


def create() -> None:
    """Make the group in every hierarchy; the kubelet refuses to make its root itself."""
    for folder in hierarchies():
        folder.mkdir(exist_ok=True)
        if folder.parent.name == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (folder / name).exists() and not (folder / name).read_text().strip():
                    (folder / name).write_text((folder.parent / name).read_text())
        if folder.parent == _ROOT:
            for controller in (_ROOT / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):
                    (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}")


def processes() -> set[int]:
    """The processes of all pods."""
    found: set[int] = set()
    for folder in hierarchies():
        for file in folder.glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in file.read_text().split())
    return found - {0}


def kill() -> None:
    """Kill every process in the group, and whatever they start meanwhile, until none is left."""

    def none_left() -> bool:
        left = processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    until("the pods' processes to end", none_left, timeout=30, interval=0.05)


def remove() -> None:
    """Remove the group in every hierarchy, innermost folders first."""
    for top in hierarchies():
        if top.is_dir():
            for folder in sorted((path for path in top.glob("**") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
