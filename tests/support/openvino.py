"""A Python with ONNX Runtime's OpenVINO build and the rest of what the runtime needs, made once, in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from pathlib import Path

from cluster.commands import output
from cluster.paths import REPOSITORY, cache
from cluster.progress import stage

LOCK = REPOSITORY / "requirements" / "openvino.lock"


def python() -> Path:
    """The program. Raises ClusterError when its packages cannot be fetched."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    home = cache() / "openvino" / digest
    made = home / "bin" / "python"
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            with stage("install ONNX Runtime's OpenVINO build (85 MB)"):
                output([sys.executable, "-m", "venv", home])
                pip: list[str | Path] = [
                    made,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--only-binary",
                    ":all:",
                ]
                output([*pip, "--require-hashes", "-r", LOCK], timeout=900)
            (home / ".ready").touch()
    return made
