"""What holds for every test: how long it may take, what Hypothesis does, and fixtures for tests that need a cluster."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import cluster as clusters
from cluster.commands import output

REQUIRE = "SERINUS_REQUIRE_CLUSTER"
TESTS = Path(__file__).parent

# No test may fail for the time that an example took. Under make the examples are the same each time; without it they
# are new ones, and what fails prints the line that repeats it.
settings.register_profile("new", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("new"), derandomize=True)
settings.load_profile("same" if os.environ.get("SERINUS_SAME_EXAMPLES") == "1" else "new")

SECONDS = {"unit": 300, "api": 300, "providers": 300, "pytorch": 900, "e2e": 1200}
"""What a test of a folder may take, fixtures aside, before it ends with the stacks of all threads: far more than any
needs. Fixtures start clusters and fetch packages; `faulthandler_timeout` ends those that hang."""
RERUN = ("api", "e2e", "pytorch")
"""Folders whose tests get a second chance, because they meet a whole machine. A test that uses it is listed as RERUN at
the end of its stage, and is a bug to be mended."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line choose a provider."""
    parser.addoption("--cluster", help="existing, kind, node or apiserver; default: $CLUSTER, else what can run here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by the folder that they are in."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if (seconds := SECONDS.get(folder)) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds, func_only=True))
        if folder in RERUN:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tells tests/stage.sh at once what failed or was run again, so that it can say so last."""
    notes = os.environ.get("SERINUS_STAGE_NOTES")
    if not notes or "PYTEST_XDIST_WORKER" in os.environ or report.outcome not in ("failed", "rerun"):
        return
    when = "" if report.when == "call" else f" ({report.when})"
    with Path(notes).open("a") as file:
        file.write(f"{report.outcome.upper()} {report.nodeid}{when}\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows why tests were run again; what passed the second time would be forgotten otherwise."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first run of {report.nodeid}", "_")
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.section(title, "-")
            terminalreporter.write_line(text)


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
