"""Building the pinned Go tools once, into the cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cluster.commands import environment, output
from cluster.errors import ClusterError
from cluster.golang import go
from cluster.paths import TOOLS_SOURCE, cache
from cluster.progress import say
from cluster.versions import module_version

T = TypeVar("T")

_VERSION_PACKAGE = "k8s.io/component-base/version"
_ATTEMPTS = 5
_REPORT_EVERY = 15.0


@dataclass(frozen=True)
class Tool:
    """A folder below tools/ with a go.mod: what it builds and the module whose version names the result."""

    name: str
    module: str
    binaries: tuple[str, ...]
    package: str = "tool"
    stamp_kubernetes: bool = False
    go_mod: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "go_mod", TOOLS_SOURCE / self.name / "go.mod")

    @property
    def version(self) -> str:
        """The pinned version, such as ``v1.36.3``."""
        return module_version(self.go_mod, self.module)

    @property
    def folder(self) -> Path:
        """Where the binaries lie once built."""
        return cache() / "tools" / f"{self.name}-{self.version}"

    def binary(self, name: str) -> Path:
        """One of the binaries."""
        return self.folder / name

    def inputs(self) -> str:
        """A digest of what the version does not say: the other pins, the flags and a main file of our own."""
        state = hashlib.sha256(f"{self.package} {self.linker_flags()}".encode())
        for file in sorted(self.go_mod.parent.iterdir()):
            state.update(file.name.encode() + file.read_bytes())
        return state.hexdigest()

    def built(self) -> bool:
        """Whether all binaries are there, from these inputs."""
        stamp = self.folder / "inputs"
        binaries = all(self.binary(name).exists() for name in self.binaries)
        return binaries and stamp.exists() and stamp.read_text() == self.inputs()

    def linker_flags(self) -> str:
        """Strip symbols; Kubernetes also needs to be told its version, or it calls itself v0.0.0."""
        flags = "-s -w"
        if self.stamp_kubernetes:
            major, minor = self.version.removeprefix("v").split(".")[:2]
            values = {"gitVersion": self.version, "gitMajor": major, "gitMinor": minor}
            flags += "".join(f" -X {_VERSION_PACKAGE}.{key}={value}" for key, value in values.items())
        return flags


KUBERNETES = Tool(
    "kubernetes",
    "k8s.io/kubernetes",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
    stamp_kubernetes=True,
)
HELM = Tool("helm", "helm.sh/helm/v4", ("helm",))
ENVOY_GATEWAY = Tool("envoy-gateway", "github.com/envoyproxy/gateway", ("envoy-gateway",))
COREDNS = Tool("coredns", "github.com/coredns/coredns", ("coredns",), package=".")
METRICS_SERVER = Tool("metrics-server", "sigs.k8s.io/metrics-server", ("metrics-server",))
H2SPEC = Tool("h2spec", "github.com/summerwind/h2spec", ("h2spec",))
FLAGGER = Tool("flagger", "github.com/fluxcd/flagger", ("flagger",))
NODE_TOOLS = (KUBERNETES, HELM, ENVOY_GATEWAY, COREDNS, METRICS_SERVER)


def build(*tools: Tool) -> None:
    """Build the tools that are not in the cache yet, one after the other, saying how far it is."""
    missing = [tool for tool in tools if not tool.built()]
    if not missing:
        return
    binary = go()
    for number, tool in enumerate(missing, 1):
        _build(binary, tool, f"build {tool.name} {tool.version} ({number} of {len(missing)})")


def module_folder(tool: Tool) -> Path:
    """The source folder of a tool's module, fetched when it is not there."""
    binary, env, cwd = go(), _environment(), tool.go_mod.parent
    _retry(lambda: output([binary, "mod", "download", tool.module], env=env, cwd=cwd), f"download {tool.module}")
    return Path(output([binary, "list", "-m", "-f", "{{.Dir}}", tool.module], env=env, cwd=cwd).strip())


def _environment() -> dict[str, str]:
    env = {"GOCACHE": str(cache() / "go-build"), "CGO_ENABLED": "0"}
    if "GOTOOLCHAIN" not in os.environ:
        env["GOTOOLCHAIN"] = "auto"
    return env


def _build(binary: Path, tool: Tool, title: str) -> None:
    env, cwd = {**_environment(), "GOBIN": str(tool.folder)}, tool.go_mod.parent
    say(f"{title}: fetching modules")
    # Listing fetches what the build needs; "go mod download" would fetch every module that any of them names.
    listing: list[str | Path] = [binary, "list", "-deps", tool.package]
    packages = _retry(lambda: output(listing, env=env, cwd=cwd, timeout=1800), f"{title}: fetch modules")
    total = len(packages.splitlines())
    tool.folder.mkdir(parents=True, exist_ok=True)
    command = [str(binary), "install", "-v", "-trimpath", "-ldflags", tool.linker_flags(), tool.package]
    _retry(lambda: _install(command, env, cwd, title, total), title)
    (tool.folder / "inputs").write_text(tool.inputs())


def _install(command: list[str], env: Mapping[str, str], cwd: Path, title: str, total: int) -> None:
    began = reported = time.monotonic()
    compiled, tail = 0, ""
    # -v names every package on stderr as it is compiled; those already in the build cache are not named.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(env), cwd=cwd) as process:
        assert process.stderr is not None
        for line in process.stderr:
            compiled, tail = compiled + 1, (tail + line)[-2000:]
            if time.monotonic() - reported >= _REPORT_EVERY:
                reported = time.monotonic()
                say(f"{title}: {reported - began:.0f} s, {compiled} of at most {total} packages compiled")
    if process.returncode != 0:
        raise ClusterError(f"{title} failed: {tail.strip()}")
    say(
        f"{title}: done in {time.monotonic() - began:.0f} s, {compiled} of {total} packages were not in the build cache"
    )


def _retry(action: Callable[[], T], title: str) -> T:
    """Repeat what depends on the network; Go answers "module version is not available" now and then for no reason."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except ClusterError as error:
            if attempt == _ATTEMPTS:
                raise
            say(f"{title}: attempt {attempt} of {_ATTEMPTS} failed, trying again: {str(error)[-300:]}")
            time.sleep(2**attempt)
    raise AssertionError("not reached")
