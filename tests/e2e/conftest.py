"""A namespace with a model store, an operator that can be killed, and users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import ClusterInfo, Provider
from fraud import train
from support.releases import Load, Operator, Release


@pytest.fixture(scope="module")
def images(provider: Provider) -> None:
    provider.load_image(provider.build_image("runtime"))


@pytest.fixture
def release(images: None, cluster: ClusterInfo, namespace: str) -> Release:
    made = Release(cluster, namespace, train.cached())
    made.without_other_operators()
    made.kubectl("apply", "--server-side", "-f", str(Path(__file__).parents[2] / "crds"))
    made.install_store()
    return made


@pytest.fixture
def operator(cluster: ClusterInfo, release: Release, tmp_path: Path) -> Iterator[Operator]:
    running = Operator(cluster, release.namespace, tmp_path)
    running.start()
    yield running
    running.kill()
    print(running.log.read_text()[-6000:])
    assert running.crashes == [], "the operator ended by itself"


@pytest.fixture
def load(cluster: ClusterInfo, release: Release, tmp_path: Path) -> Iterator[Load]:
    generator = Load(cluster, release.host, tmp_path / "requests.csv", rate=60)
    yield generator
    generator.stop()
