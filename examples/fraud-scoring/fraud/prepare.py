"""Gets a cluster to the point where the demo can begin: images, chart, namespace, model store."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster import ClusterInfo, Provider
from fraud import store
from fraud.kube import Tools
from fraud.train import Built, cache_root

REPOSITORY = Path(__file__).resolve().parents[3]
CHART = REPOSITORY / "charts" / "serinus"
SYSTEM = "serinus-system"
RELEASE = "serinus"
Note = Callable[[str], None]


class BusyError(Exception):
    """Another demo runs on this machine; two in one namespace would spoil each other."""


@contextmanager
def alone() -> Iterator[None]:
    """Holds the demo's lock. Raises BusyError; the kernel gives the lock back when its holder dies."""
    file = cache_root() / "demo.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("another demo runs on this machine; wait for its end or interrupt it") from None
        yield


@dataclass(frozen=True)
class Images:
    """Image names. With a prefix (for example `registry.example.com/team/`) they are expected to be there already."""

    prefix: str
    tag: str

    @classmethod
    def from_environment(cls) -> Images:
        """IMAGE_PREFIX and IMAGE_TAG, or what the test cluster loads."""
        return cls(os.environ.get("IMAGE_PREFIX", ""), os.environ.get("IMAGE_TAG", "dev"))

    def repository(self, name: str) -> str:
        """`serinus-operator` or `serinus-runtime` with its prefix."""
        return f"{self.prefix}serinus-{name}"

    def full(self, name: str) -> str:
        """Repository and tag."""
        return f"{self.repository(name)}:{self.tag}"


def tools(info: ClusterInfo) -> Tools:
    """kubectl and helm for this cluster."""
    return Tools(info.kubectl, info.helm, info.kubeconfig)


def load_images(provider: Provider, images: Images, note: Note) -> str:
    """Builds both images and loads them; nothing to do when IMAGE_PREFIX names a registry.

    Returns a short hash of the operator's image, empty when it was not built here.
    """
    if images.prefix:
        note(f"images: {images.full('operator')} and {images.full('runtime')} are taken from their registry")
        return ""
    archives = {}
    for name in ("operator", "runtime"):
        note(f"image serinus-{name}:dev: build (or find) and load")
        archives[name] = provider.build_image(name)
        provider.load_image(archives[name])
    with archives["operator"].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def install_chart(kubernetes: Tools, info: ClusterInfo, images: Images, build: str) -> None:
    """Installs or upgrades the operator and waits until it is available.

    `build` tells one image from the next under the same tag: when it changes, the operator's pods are replaced.
    """
    values = {
        "replicas": 2,
        "image.repository": images.repository("operator"),
        "image.tag": images.tag,
        "runtimeImage": images.full("runtime"),
        "prometheus.url": info.prometheus_url,
        "podAnnotations.build": f"b{build}",
    }
    settings = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    kubernetes.run_helm(
        "upgrade",
        "--install",
        RELEASE,
        str(CHART),
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--take-ownership",
        "--wait",
        *settings,
    )


def install_store(kubernetes: Tools, models: dict[str, Built], images: Images) -> None:
    """The namespace and the model store, ready to answer."""
    namespace = yaml.safe_load((store.MANIFESTS / "namespace.yaml").read_text())
    kubernetes.apply(namespace)
    kubernetes.apply(*store.manifests(models.values(), images.full("runtime")))
    kubernetes.run("-n", store.NAMESPACE, "rollout", "status", f"deployment/{store.NAME}", "--timeout=180s")


def remove_models(kubernetes: Tools) -> None:
    """Deletes what an earlier demo left, so that v1 starts afresh."""
    kubernetes.run("delete", "namespace", store.NAMESPACE, "--ignore-not-found", "--wait", timeout=240)


def remove_everything(kubernetes: Tools) -> None:
    """For a cluster that is not ours: the demo's namespace and the chart go, the cluster stays."""
    remove_models(kubernetes)
    kubernetes.run_helm("uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait")
