"""Where things lie: the cache, the run folders and this repository."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS_SOURCE = Path(__file__).resolve().parent / "tools"


def cache() -> Path:
    """The folder of everything that is kept between runs: ``$SERINUS_CACHE`` or ``~/.cache/serinus``."""
    return Path(os.environ.get("SERINUS_CACHE") or Path.home() / ".cache" / "serinus").resolve()


def run_folder(provider: str) -> Path:
    """The folder of a running cluster's state; it exists only while that cluster does."""
    return cache() / "run" / provider
