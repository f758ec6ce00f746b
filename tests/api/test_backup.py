"""Export and restore against a real API server: what comes back is what was there, and nothing live is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.tables import Kubectl, model_deployment
from api.test_cli import Serinus, serinus
from serinus.cli import backup, main
from serinus.objects.context import Context
from serinus.objects.workload import controller_revision
from serinus.release.observed import Failure
from unit.release.world import NAME, spec, with_live

pytestmark = pytest.mark.needs("apiserver")
__all__ = ["serinus"]
SPACE = "backup"


def owner(kubectl: Kubectl) -> dict[str, object]:
    found: dict[str, object] = json.loads(kubectl.run("get", "mdep", NAME, "-n", SPACE, "-o", "json").stdout)
    return found


def test_a_rebuilt_cluster_gets_its_status_back(serinus: Serinus, kubectl: Kubectl, tmp_path: Path) -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.failures[world.target().name] = Failure("OOMKilled", "limit")
    world.run(lambda w: w.status.release is None and "OOMKilled" in str(w.status.last_release))
    declared = model_deployment(NAME, world.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), SPACE)
    kubectl.run("create", "namespace", SPACE)
    assert kubectl.apply(declared).returncode == 0
    uid = str(owner(kubectl)["metadata"]["uid"])  # type: ignore[index]
    for number, revision in enumerate(world.snapshots.values(), 1):
        made = controller_revision(Context(SPACE, NAME, uid, world.spec), revision, number)
        assert kubectl.apply(made).returncode == 0
    status = world.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    patch = kubectl.run(
        "patch", "mdep", NAME, "-n", SPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    assert patch.returncode == 0, patch.stderr

    path = tmp_path / "kept.yaml"
    done = serinus("-n", SPACE, "export", "-o", str(path))
    assert done.returncode == main.OK, done.stderr
    (kept,) = backup.read(str(path))
    assert kept.status.live == world.status.live

    refused = serinus("-n", SPACE, "restore", "-f", str(path))
    assert refused.returncode == main.FAILED
    assert "version v1 is live" in refused.stderr

    # The cluster is lost. What git has comes back: a specification without status, and no revisions.
    assert kubectl.run("delete", "mdep", NAME, "-n", SPACE).returncode == 0
    assert kubectl.run("delete", "controllerrevisions", "--all", "-n", SPACE).returncode == 0
    absent = serinus("-n", SPACE, "restore", "-f", str(path))
    assert absent.returncode == main.FAILED
    assert "no ModelDeployment" in absent.stderr
    assert kubectl.apply(declared).returncode == 0

    dry = serinus("-n", SPACE, "restore", "-f", str(path), "--dry-run")
    assert dry.returncode == main.OK, dry.stderr
    assert "live" not in owner(kubectl).get("status", {})  # type: ignore[operator]
    done = serinus("-n", SPACE, "restore", "-f", str(path))
    assert done.returncode == main.OK, done.stderr
    assert "version v1 is live as it was" in done.stdout
    found = owner(kubectl)
    assert found["status"]["live"]["version"] == "v1"  # type: ignore[index]
    assert found["status"]["failedRevisions"] == world.status.failed_revisions  # type: ignore[index]
    listed = json.loads(kubectl.run("get", "controllerrevisions", "-n", SPACE, "-o", "json").stdout)["items"]
    assert {each["metadata"]["ownerReferences"][0]["uid"] for each in listed} == {found["metadata"]["uid"]}  # type: ignore[index]
    assert len(listed) == len(kept.revisions) == len(world.snapshots)


def test_the_files_of_other_namespaces_are_left_alone(serinus: Serinus, tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(backup.listed([]))
    done = serinus("-n", SPACE, "restore", "-f", str(path))
    assert done.returncode == main.FAILED
    assert "holds nothing of namespace" in done.stderr
