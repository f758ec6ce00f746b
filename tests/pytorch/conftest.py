"""PyTorch, and models made with it, once for all tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serinus_runtime.config import Config
from serinus_runtime.server import Loaded, load_model
from support import torchroot
from unit.runtime import support

MAKER = Path(__file__).parent / "make_models.py"


@pytest.fixture(scope="session")
def root() -> torchroot.TorchRoot:
    """Where torch, Java and TorchServe are."""
    return torchroot.ensure()


@pytest.fixture(scope="session")
def models(root: torchroot.TorchRoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of model directories; what they are is in make_models.py."""
    folder = tmp_path_factory.mktemp("torch") / "models"
    subprocess.run([root.python, MAKER, folder], check=True, timeout=300)
    return folder


class TorchLive(support.Live):
    """A server that tells its engine."""

    def __init__(self, loaded: Loaded, **settings: Any) -> None:
        super().__init__(loaded, **settings)
        self.engine: Any = loaded.engine

    def assert_ready(self) -> None:
        """Fails when requests would be refused."""
        assert support.request(self.port, "GET", "/v2/health/ready")[0] == 200

    def assert_not_ready(self) -> None:
        """Fails when requests would be taken."""
        assert support.request(self.port, "GET", "/v2/health/ready")[0] == 503


class Torch:
    """Servers for models of the folder."""

    def __init__(self, root: torchroot.TorchRoot, models: Path) -> None:
        self.root = root
        self.models = models

    def config(self, name: str, **settings: Any) -> Config:
        """Settings for the model `name`."""
        return Config(**{"model_dir": self.models / name, "torch_python": str(self.root.python),
            "torchserve_home": self.root.torchserve, "java": str(self.root.java), **settings})  # fmt: skip

    def live(self, name: str, **settings: Any) -> TorchLive:
        """A server of the model `name`."""
        loaded = load_model(self.config(name, **settings))
        return TorchLive(loaded, **settings)


@pytest.fixture(scope="session")
def torch(root: torchroot.TorchRoot, models: Path) -> Torch:
    """See `Torch`."""
    return Torch(root, models)


@pytest.fixture(scope="session")
def script(torch: Torch) -> Iterator[support.Live]:
    """A server of the TorchScript sum."""
    with torch.live("script", batch_max_size=8) as server:
        yield server
