"""Versions are read from go.mod and from the Go tool's answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import ClusterError
from cluster.gobuild import KUBERNETES, NODE_TOOLS, Tool
from cluster.node_images import envoy_version
from cluster.versions import go_version, module_version


def test_version_in_a_block_and_on_a_line(tmp_path: Path) -> None:
    file = tmp_path / "go.mod"
    block = "require (\n\tk8s.io/api v0.36.3 // indirect\n\tk8s.io/ap v0.1.0\n)\n"
    file.write_text(f"module m\n\nrequire k8s.io/a v1.2.3\n\n{block}")
    assert module_version(file, "k8s.io/a") == "v1.2.3"
    assert module_version(file, "k8s.io/api") == "v0.36.3"
    with pytest.raises(ClusterError, match=r"requires no k8s\.io/b"):
        module_version(file, "k8s.io/b")


@pytest.mark.parametrize("tool", NODE_TOOLS, ids=lambda tool: tool.name)
def test_pinned_tools_have_versions(tool: Tool, cache: Path) -> None:
    version, folder = tool.version, tool.folder
    assert version.startswith("v")
    assert folder.parent == cache / "tools"
    assert folder.name.endswith(version)


def test_kubernetes_is_told_its_version() -> None:
    flags = KUBERNETES.linker_flags()
    assert f"gitVersion={KUBERNETES.version}" in flags
    assert "gitMajor=1" in flags


def test_envoy_is_pinned() -> None:
    assert envoy_version().count(".") == 2


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.21 darwin/arm64", (1, 21)),
        ("go version devel go1.27-abcdef linux/amd64", (1, 27)),
        ("gccgo 12", None),
        ("", None),
    ],
)
def test_go_version(text: str, version: tuple[int, int] | None) -> None:
    assert go_version(text) == version
