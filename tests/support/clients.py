"""Environments of their own for clients that cannot live beside ours, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from cluster.paths import cache

# What the client's module imports; the package itself asks for 40 more (and half a gigabyte), for servers.
KSERVE = ("kserve==0.21.0",)
KSERVE_NEEDS = (
    "cloudevents<2", "fastapi", "grpcio", "grpcio-tools", "httpx<1", "numpy", "orjson", "pandas<3", "psutil",
    "pydantic", "python-dateutil", "python-multipart", "pyyaml", "protobuf>=6,<7",
)  # fmt: skip


def kserve_python() -> Path:
    """A Python that can import the REST client of KServe's SDK."""
    return _made("kserve", KSERVE, KSERVE_NEEDS)


def _made(name: str, alone: tuple[str, ...], needs: tuple[str, ...]) -> Path:
    """`alone` is installed without what it asks for, `needs` with."""
    key = hashlib.sha256(repr((alone, needs, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = cache() / "clients" / f"{name}-{key}"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for more in (needs, ("--no-deps", *alone)):
            done = subprocess.run([*pip, *more], capture_output=True, text=True, timeout=1200, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
        (folder / "complete").touch()
    return python
