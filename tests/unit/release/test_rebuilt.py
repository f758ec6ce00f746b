"""A cluster that is built anew, with and without what was exported from the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from serinus.api.status import ModelDeploymentStatus
from serinus.cli import backup
from serinus.cli.picture import CliError, Picture
from serinus.objects.read import Children, observe
from serinus.release.observed import Failure
from unit.cli.test_cli import picture
from unit.release.world import World, settled, spec, with_live


def old(world: World, path: Path) -> list[backup.Backup]:
    """What an export of this world holds, read again."""
    path.write_text(backup.listed(backup.exported(picture(world))))
    return backup.read(str(path))


def rebuilt(declared: str, kept: backup.Backup | None) -> World:
    """A new cluster in which only the specification exists, and what is restored of the old one."""
    world = World(spec(declared))
    if kept is not None:
        empty = picture(World(spec(declared)))
        empty.owner["metadata"]["resourceVersion"] = "7"
        *revisions, status = backup.objects(kept, empty)
        world.snapshots = dict(observe("fraud", Children(revisions)).snapshots)
        world.status = ModelDeploymentStatus.model_validate(status["status"])
        assert status["metadata"]["resourceVersion"] == "7"
    return world


def mid_release() -> World:
    world = with_live()
    world.apply(spec("v2"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    return world


def test_without_status_the_declared_version_is_released_as_a_first_one() -> None:
    world = rebuilt("v2", None)
    name = world.target().name
    world.tick()
    assert world.status.release is not None
    world.unready.add(name)
    for _ in range(20):
        world.tick()
        assert world.live() is None
        assert world.route.get(name, 0) == 0, "no user before its pods are verified and ready"
    world.unready.clear()
    world.run(settled)
    assert world.live() == "v2"


def test_without_status_a_version_that_fails_never_goes_live() -> None:
    world = rebuilt("v2", None)
    world.failures[world.target().name] = Failure("DigestMismatch", "other bytes")
    world.tick()
    world.run(settled)
    assert world.live() is None
    assert world.route == {}


def test_restored_nothing_is_released_again(tmp_path: Path) -> None:
    before = with_live()
    (kept,) = old(before, tmp_path / "x.yaml")
    world = rebuilt("v1", kept)
    for _ in range(20):
        world.tick()
        assert world.status.release is None
        assert world.live() == "v1"
    assert world.ready[world.target().name] == 2
    assert world.status.history == before.status.history


def test_restored_an_unproved_version_gets_its_full_release_beside_the_proved_one(tmp_path: Path) -> None:
    (kept,) = old(mid_release(), tmp_path / "x.yaml")
    world = rebuilt("v2", kept)
    proved, candidate = kept.revisions[0][1].name, world.target().name
    while world.live() == "v1":
        world.tick()
        weight = world.status.release.weight if world.status.release else 100
        assert world.route.get(candidate, 0) == (weight if world.live() == "v1" else 100)
        assert world.route.get(proved, 0) == 100 - world.route.get(candidate, 0)
    seen = [weight for n, weight in enumerate(world.weights_seen) if n == 0 or world.weights_seen[n - 1] != weight]
    assert seen[:4] == [0, 5, 50, 100]
    assert world.live() == "v2"


def test_restored_a_version_that_failed_is_not_tried_again(tmp_path: Path) -> None:
    before = mid_release()
    before.error_rate[before.target().name] = 0.5
    before.run(settled)
    (kept,) = old(before, tmp_path / "x.yaml")
    world = rebuilt("v2", kept)
    for _ in range(20):
        world.tick()
        assert world.status.release is None
    assert world.live() == "v1"


def test_restored_old_annotations_ask_for_nothing(tmp_path: Path) -> None:
    (kept,) = old(mid_release(), tmp_path / "x.yaml")
    world = rebuilt("v2", kept)
    world.asked = {"abort": "#long ago", "rollback": "previous#long ago"}
    world.tick()
    world.run(settled)
    assert world.live() == "v2"


def test_where_something_is_live_nothing_is_restored(tmp_path: Path) -> None:
    (kept,) = old(with_live(), tmp_path / "x.yaml")
    with pytest.raises(CliError, match="version v1 is live; a status is restored only where nothing is"):
        backup.objects(kept, picture(with_live()))


def edited(world: World, path: Path, **change: object) -> None:
    document = yaml.safe_load(backup.listed(backup.exported(picture(world))))
    for item in document["items"]:
        if item["kind"] == "ControllerRevision":
            item["data"]["model"].update(change)
    path.write_text(yaml.safe_dump(document))


@pytest.mark.parametrize("change", [{"uri": "http://evil/"}, {"digest": "sha256:" + "f" * 64}])
def test_a_file_that_somebody_changed_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    path = tmp_path / "x.yaml"
    edited(with_live(), path, **change)
    with pytest.raises(CliError, match="the file was changed"):
        backup.read(str(path))


@pytest.mark.parametrize("text", ["", "[1, 2]", "items: [{}]", "a: [", "kind: List"])
def test_anything_else_is_refused_with_a_word(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(CliError, match=r"x\.yaml"):
        backup.read(str(path))


def test_a_live_revision_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    shown = picture(with_live())
    path.write_text(backup.listed(backup.exported(Picture(shown.owner, Children(), (), shown.now))))
    with pytest.raises(CliError, match="does not hold revision"):
        backup.read(str(path))


def test_what_was_never_live_is_not_restored(tmp_path: Path) -> None:
    (kept,) = old(World(spec("v1")), tmp_path / "x.yaml")
    with pytest.raises(CliError, match="nothing was live"):
        backup.objects(kept, picture(World(spec("v1"))))
