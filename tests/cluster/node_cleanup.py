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

# Folders that containerd, CNI and the kubelet make at places nobody can choose; removed where nothing else is in them.
_FIXED_FOLDERS = (
    "/run/containerd/s",
    "/run/containerd",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/log/containers",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
)


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
    # A socket that no kubelet listens at any more.
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    for folder in _FIXED_FOLDERS:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    remove_folder(run)
    if traces(run):
        raise ClusterError(f"could not remove everything of the node; look at {run} and at /sys/fs/cgroup/*/serinus")
