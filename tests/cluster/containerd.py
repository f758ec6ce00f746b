"""A container runtime of the node's own: its configuration, image import, and cleaning up after it."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from cluster import packages
from cluster.commands import output
from cluster.network import cni_config
from cluster.settings import CNI_NETWORK, UTILITY_IMAGE
from cluster.wait import until


class Containerd:
    """containerd with root, state and socket in the run folder, apart from any other on the machine."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "containerd"
        self.socket = self._folder / "c.sock"

    def configure(self) -> list[str | Path]:
        """Write the configuration; returns the command line."""
        cni = self._folder / "cni"
        cni.mkdir(parents=True, exist_ok=True)
        (cni / "10-serinus.conflist").write_text(cni_config(self._folder))
        (self._folder / "config.toml").write_text(self._config())
        return [packages.program("containerd"), "--config", self._folder / "config.toml"]

    def wait(self) -> None:
        """Wait until the runtime answers."""
        until("containerd", lambda: self.socket.exists() and "Server" in self._ctr("version", check=False), timeout=30)

    def load(self, archive: Path) -> None:
        """Import the images of a docker or OCI archive, for the kubelet to find."""
        self._ctr("--namespace", "k8s.io", "images", "import", str(archive))

    def images(self) -> list[str]:
        """The names of the imported images."""
        return self._ctr("--namespace", "k8s.io", "images", "list", "--quiet").split()

    def clean(self) -> None:
        """Remove what the runtime leaves outside the run folder; it and its shims have to be gone."""
        for address in self._folder.glob("state/io.containerd.runtime.v2.task/*/*/address"):
            with contextlib.suppress(OSError):
                Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
        records = Path("/var/lib/cni/results")
        sandboxes = [folder.name for folder in self._folder.glob("root/io.containerd.grpc.v1.cri/sandboxes/*")]
        for pattern in [f"{CNI_NETWORK}-*", *(f"*-{sandbox}-*" for sandbox in sandboxes)]:
            for record in records.glob(pattern):
                record.unlink(missing_ok=True)

    def _ctr(self, *arguments: str, check: bool = True) -> str:
        return output([packages.program("ctr"), "--address", self.socket, *arguments], check=check)

    def _config(self) -> str:
        def quoted(value: object) -> str:
            return json.dumps(str(value))

        return f"""version = 2
root = {quoted(self._folder / "root")}
state = {quoted(self._folder / "state")}
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
  address = {quoted(self.socket)}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {quoted(UTILITY_IMAGE)}
  # Without CAP_SYS_RESOURCE (a container, some virtual machines) scores cannot be lowered and no sandbox would start.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = {quoted(self._folder / "cni")}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = {quoted(self._folder / "runc")}
"""


def remove_log_links(pod_logs: Path) -> None:
    """Remove the links that the kubelet leaves in /var/log/containers and that point into our folder."""
    folder = Path("/var/log/containers")
    if folder.is_dir():
        for link in folder.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(pod_logs):
                link.unlink(missing_ok=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything mounted below a folder, innermost first; never follows anything out of it."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point.is_relative_to(folder):
            points.append(point)
    for point in reversed(points):
        output(["umount", "--lazy", point], check=False)


def remove_folder(folder: Path) -> None:
    """Remove a run folder once nothing is mounted in it."""
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder)
