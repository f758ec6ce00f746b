"""Fixtures for tests that need a cluster, and the marker that says what they need of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster as clusters
from cluster.commands import output

REQUIRE = "SERINUS_REQUIRE_CLUSTER"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line choose a provider."""
    parser.addoption("--cluster", help="existing, kind, node or apiserver; default: $CLUSTER, else what can run here")


def _provider(config: pytest.Config) -> clusters.Provider:
    name: str | None = config.getoption("--cluster")
    return clusters.get(name)


def _missing(config: pytest.Config, needed: frozenset[str]) -> str | None:
    """Why a test cannot run; None when it can. Asking starts nothing."""
    if unknown := needed - clusters.CAPABILITIES:
        raise pytest.UsageError(f"needs: no such capability: {', '.join(sorted(unknown))}")
    if needed == {"apiserver"}:
        return clusters.get("apiserver").unavailable()
    try:
        provider = _provider(config)
    except clusters.ClusterError as error:
        return str(error)
    if reason := provider.unavailable():
        return reason
    lacking = needed - provider.capabilities
    return f"the provider {provider.name} lacks: {', '.join(sorted(lacking))}" if lacking else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs cannot be met, or fail it where a cluster is required (SERINUS_REQUIRE_CLUSTER=1)."""
    needed = frozenset(name for marker in item.iter_markers("needs") for name in marker.args)
    if not needed or (reason := _missing(item.config, needed)) is None:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE}=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def provider(request: pytest.FixtureRequest) -> clusters.Provider:
    """The chosen provider, its cluster running; for tests of faults and for loading images."""
    chosen = _provider(request.config)
    chosen.start()
    return chosen


@pytest.fixture(scope="session")
def cluster(provider: clusters.Provider) -> clusters.ClusterInfo:
    """The chosen cluster, started if it does not run. It is left running: the next test run finds it."""
    return provider.start()


@pytest.fixture(scope="session")
def apiserver() -> Iterator[clusters.ClusterInfo]:
    """An API server without controllers and nodes; stopped at the end unless it ran before."""
    own = clusters.get("apiserver")
    ran_before = own.running() is not None
    yield own.start()
    if not ran_before:
        own.stop()


@pytest.fixture
def namespace(cluster: clusters.ClusterInfo) -> Iterator[str]:
    """A namespace of the test's own, which accepts only pods of the ``restricted`` level; deleted afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl: list[str | Path] = [cluster.kubectl, "--kubeconfig", cluster.kubeconfig]
    output([*kubectl, "create", "namespace", name])
    output([*kubectl, "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"])
    yield name
    output([*kubectl, "delete", "namespace", name, "--wait=false"])
