"""Taking a node apart: after a normal stop as well as after a kill -9 of anything."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cluster import cgroups, network
from cluster.containerd import Containerd, remove_folder, remove_log_links, unmount_below
from cluster.errors import ClusterError
from cluster.kubelet import pod_logs
from cluster.processes import Processes
from cluster.settings import NODE_DEVICE


def traces(run: Path) -> bool:
    """Whether anything of a node is left on this machine."""
    groups = any(folder.exists() for folder in cgroups.hierarchies())
    return run.exists() or groups or Path("/sys/class/net", NODE_DEVICE).exists()


def clean(run: Path) -> None:
    """End the node's processes and pods and remove its mounts, devices, rules, groups and files."""
    components = Processes(run)
    # First those that would repair what is taken away here.
    for name in ("kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler"):
        components.kill(name)
    cgroups.kill()
    for name in reversed(components.names()):
        components.kill(name)
    components.kill_strays()
    cgroups.kill()
    Containerd(run).clean()
    unmount_below(run)
    network.down(run)
    remove_log_links(pod_logs(run))
    cgroups.remove()
    with contextlib.suppress(OSError):
        Path("/run/containerd/s").rmdir()
    remove_folder(run)
    if traces(run):
        raise ClusterError(f"could not remove everything of the node; look at {run} and at /sys/fs/cgroup/*/serinus")
