"""A cluster of somebody else's is used as described and never changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import ClusterError
from cluster.existing import Existing


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A complete description."""
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("")
    return {
        "KUBECONFIG": str(kubeconfig),
        "KUBECTL": "/bin/kubectl",
        "HELM": "/bin/helm",
        "GATEWAY": "infra/public",
        "GATEWAY_URL": "http://gateway.example.com:80",
        "PROMETHEUS_URL": "http://prometheus.monitoring:9090",
    }


def test_description_becomes_the_cluster(environment: dict[str, str]) -> None:
    info = Existing(environment).start()
    assert info.gateway == ("infra", "public")
    assert info.prometheus_local_url == info.prometheus_url == "http://prometheus.monitoring:9090"
    assert info.audit_log is None
    assert Existing(info.environment()).start() == info


def test_parts_it_cannot_know_are_not_claimed(environment: dict[str, str]) -> None:
    for name in ("GATEWAY_URL", "PROMETHEUS_URL"):
        del environment[name]
    assert Existing(environment).capabilities == {"apiserver", "pods"}


def test_kubeconfig_has_to_be_named() -> None:
    with pytest.raises(ClusterError, match="needs KUBECONFIG"):
        Existing({}).start()


def test_kubeconfig_has_to_be_a_file(environment: dict[str, str]) -> None:
    environment["KUBECONFIG"] += "-not"
    assert "is no file" in (Existing(environment).unavailable() or "")


def test_gateway_needs_its_namespace(environment: dict[str, str]) -> None:
    environment["GATEWAY"] = "public"
    assert "namespace/name" in (Existing(environment).unavailable() or "")


@pytest.mark.parametrize(
    "action",
    [
        lambda provider: provider.stop(),
        lambda provider: provider.load_image(Path("image.tar")),
        lambda provider: provider.stop_component("etcd"),
        lambda provider: provider.start_component("etcd"),
        lambda provider: provider.set_extended_resource("nvidia.com/gpu", 1),
    ],
)
def test_nothing_in_it_is_touched(environment: dict[str, str], action: Callable[[Existing], None]) -> None:
    with pytest.raises(ClusterError, match="CLUSTER=existing"):
        action(Existing(environment))
