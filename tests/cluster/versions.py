"""Reading versions: of the pinned tools from their go.mod, and of the Go tool itself."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.errors import ClusterError


def module_version(go_mod: Path, module: str) -> str:
    """The version of ``module`` that a go.mod file requires, such as ``v1.36.3``."""
    match = re.search(rf"^(?:require\s+|\s+){re.escape(module)}\s+(v\S+)", go_mod.read_text(), re.MULTILINE)
    if match is None:
        raise ClusterError(f"{go_mod} requires no {module}")
    return match.group(1)


def go_version(text: str) -> tuple[int, int] | None:
    """Major and minor version from what ``go version`` prints; None when it is something else."""
    match = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else None
