"""A container engine that answers: docker, or podman in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.commands import output
from cluster.errors import ClusterError

ENGINES = ("docker", "podman")
# Changes when what docker is asked to do changes.
RECIPE = "docker-1"


def engine() -> str | None:
    """The first engine whose daemon (or socket) answers."""
    for name in ENGINES:
        if shutil.which(name) is not None and _answers(name):
            return name
    return None


def _answers(name: str) -> bool:
    try:
        output([name, "info"], timeout=20)
    except ClusterError:
        return False
    return True


def build_command(name: str, context: Path, tag: str) -> list[str | Path]:
    """The command that builds a Containerfile on its default base."""
    return [name, "build", "--tag", tag, "--file", context / "Containerfile", context]


def build(context: Path, tag: str, archive: Path) -> None:
    """Build an image and save it as a docker archive."""
    name = engine()
    if name is None:
        raise ClusterError("no container engine answers; start Docker or Podman")
    output(build_command(name, context, tag), timeout=1800)
    output([name, "save", "--output", archive, tag], timeout=600)
