"""Which provider is chosen."""

from __future__ import annotations

import pytest

import cluster
from cluster import detect
from cluster.existing import Existing
from cluster.node import Node


class Stub(Node):
    """A provider that can or cannot run."""

    def __init__(self, name: str, reason: str | None) -> None:
        super().__init__()
        self.name = name
        self._reason = reason

    def unavailable(self) -> str | None:
        return self._reason


def test_existing_and_apiserver_are_never_detected() -> None:
    assert detect.DETECTED == ("kind", "node")


def test_first_that_can_run_is_chosen() -> None:
    stubs = [Stub("kind", "no engine"), Stub("node", None), Stub("other", None)]
    assert detect.choose(list(stubs)) is stubs[1]


def test_all_reasons_are_told() -> None:
    with pytest.raises(cluster.ClusterError, match=r"(?s)kind: no engine.*node: not root"):
        detect.choose([Stub("kind", "no engine"), Stub("node", "not root")])


@pytest.mark.parametrize("name", ["existing", "kind", "node", "apiserver"])
def test_variable_chooses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", name)
    assert cluster.get().name == name


def test_argument_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "node")
    assert isinstance(cluster.get("existing"), Existing)


def test_unknown_name_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(cluster.ClusterError, match="CLUSTER=minikube is unknown; choose one of: existing, kind, node"):
        cluster.get()


@pytest.mark.parametrize("name", ["existing", "kind", "node", "apiserver"])
def test_capabilities_are_known_ones(name: str) -> None:
    assert cluster.get(name).capabilities <= cluster.CAPABILITIES
