"""Whether a model is watched, decided when it is taken into service."""

from __future__ import annotations

from serinus_runtime import logs
from serinus_runtime.about import About
from serinus_runtime.config import Config
from serinus_runtime.drift import reference
from serinus_runtime.drift.monitor import DriftMonitor
from serinus_runtime.engine import Signature


def open_monitor(config: Config, signature: Signature, about: About) -> DriftMonitor | None:
    """A monitor for models that ship a reference; None for others, and where `SERINUS_DRIFT` is off.

    A reference that cannot be used is told in the log and left out: it never keeps a model from being served.
    """
    if config.drift == "off":
        return None
    try:
        found = reference.read(config.model_dir)
    except (OSError, ValueError) as error:
        logs.event("warning", f"{reference.FILE} cannot be used and is ignored", why=str(error)[:300])
        return None
    if found is None:
        return None
    return DriftMonitor(signature, about, found, window=config.drift_window, share=config.drift_sample)
