"""Verbs that read, against a real API server that holds what the state machine and `kubectl` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.tables import Kubectl, model_deployment
from api.test_cli import Serinus, serinus
from serinus.api.status import ModelDeploymentStatus
from serinus.cli import main
from serinus.objects.author import CAUSE, author
from serinus.objects.context import Context
from serinus.objects.workload import controller_revision
from unit.cli.test_report import story
from unit.release.world import NAME

pytestmark = pytest.mark.needs("apiserver")
__all__ = ["serinus"]


@pytest.fixture
def told(kubectl: Kubectl) -> str:
    """A ModelDeployment in mid-release, with its past, stored in a namespace of its own."""
    space, world = "verbs", story()
    kubectl.run("create", "namespace", space)
    declared = model_deployment(NAME, world.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), space)
    declared["metadata"]["annotations"] = {CAUSE: "ticket 7"}
    assert kubectl.apply(declared).returncode == 0
    uid = kubectl.run("get", "mdep", NAME, "-n", space, "-o", "jsonpath={.metadata.uid}").stdout
    for number, revision in enumerate(world.snapshots.values(), 1):
        made = controller_revision(Context(space, NAME, uid, world.spec), revision, number)
        assert kubectl.apply(made).returncode == 0
    status = json.dumps({"status": world.status.model_dump(mode="json", by_alias=True, exclude_none=True)})
    done = kubectl.run("patch", "mdep", NAME, "-n", space, "--subresource=status", "--type=merge", "-p", status)
    assert done.returncode == 0, done.stderr
    return space


def test_they_show_what_is_stored(serinus: Serinus, kubectl: Kubectl, told: str, tmp_path: Path) -> None:
    found = json.loads(kubectl.run("get", "mdep", NAME, "-n", told, "-o", "json", "--show-managed-fields").stdout)
    status = ModelDeploymentStatus.model_validate(found["status"])
    assert status.release is not None
    assert status.release.timeline, "the API server keeps the moments"

    who = author(found["metadata"])
    assert who is not None
    assert (who.manager, who.cause) == ("kubectl-client-side-apply", "ticket 7")

    path = tmp_path / "report.html"
    done = serinus("-n", told, "report", NAME, "-o", str(path))
    assert done.returncode == main.OK, done.stderr
    page = path.read_text()
    for word in ("ErrorRateTooHigh", "RolledBack", "<svg", "uri: http://store/v3/"):
        assert word in page

    rows = json.loads(serinus("-n", told, "history", NAME, "-o", "json").stdout)
    assert {row["version"]: row["outcome"] for row in rows}["v3"] == "RolledBack"
    assert "-  uri: http://store/v2/" in serinus("-n", told, "diff", NAME, "v2", "v4").stdout
    shown = serinus("-n", told, "status", NAME).stdout
    assert "[5%] > 50% > 100%" in shown
    refused = serinus("-n", told, "report", NAME, "-o", str(tmp_path / "no" / "folder.html"))
    assert refused.returncode == main.FAILED
    assert "No such file or directory" in refused.stderr
