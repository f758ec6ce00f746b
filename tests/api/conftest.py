"""A real kube-apiserver with the CRD, for the whole session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.tables import ROOT, Kubectl


@pytest.fixture(scope="session")
def kubectl(apiserver: Any) -> Kubectl:
    """`kubectl` against an API server that has the ModelDeployment CRD established."""
    program = Kubectl(Path(apiserver.kubectl), Path(apiserver.kubeconfig))
    program.establish(ROOT / "crds")
    return program
