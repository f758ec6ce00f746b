"""Who answers: what every line of the prediction log says."""

from __future__ import annotations

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """What every line says about who answered."""

    model: str = ""
    version: str = ""
    digest: str = ""
    preprocessing: str = ""
    """Hash of the preprocessing, as model.json gives it."""
    runtime: str = ""
    revision: str = ""
    namespace: str = ""
    deployment: str = ""
