"""Who asked for a release, as far as anybody can know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serinus.api.status import Author
from serinus.cli import history
from serinus.objects.author import CAUSE, author, compact
from serinus.release.who import signature, signed
from unit.cli.test_cli import picture
from unit.release.world import World, settled, spec, with_live


def entry(manager: str, time: str, *fields: str, subresource: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "manager": manager,
        "operation": "Update",
        "time": time,
        "fieldsV1": {name: {"f:model": {}} for name in fields},
    }
    return {**made, "subresource": subresource} if subresource else made


MANAGED = [
    entry("kubectl-client-side-apply", "2026-11-20T10:00:00Z", "f:spec", "f:metadata"),
    entry("argocd-controller", "2026-11-21T10:00:00Z", "f:spec"),
    entry("kubectl-annotate", "2026-11-21T11:00:00Z", "f:metadata"),
    entry("serinus", "2026-11-21T12:00:00Z", "f:status", subresource="status"),
]


def test_the_last_who_wrote_the_spec() -> None:
    found = author({"managedFields": MANAGED, "annotations": {CAUSE: "JIRA-7"}})
    assert found is not None
    assert (found.manager, found.cause) == ("argocd-controller", "JIRA-7")
    assert found.at is not None
    assert found.at.isoformat() == "2026-11-21T10:00:00+00:00"
    assert author({}) is None
    assert author({"managedFields": compact(MANAGED), "annotations": {CAUSE: "JIRA-7"}}) == found
    assert len(str(compact(MANAGED))) < len(str(MANAGED))


def test_what_strangers_wrote_is_bounded() -> None:
    found = author({"managedFields": MANAGED, "annotations": {CAUSE: "x" * 10_000}})
    assert found is not None
    assert len(found.cause or "") == 256
    assert len(signature("#" + "y" * 10_000)) == 200
    assert signature("previous#2026-11-21 \n alice") == "2026-11-21 alice"
    assert signed("aborted", "#") == signed("aborted", "now") == "aborted"


def releasing_by(by: Author) -> World:
    world = with_live()
    base = world.given
    world.given = lambda: replace(base(), author=by)  # type: ignore[method-assign]
    world.apply(spec("v2"))
    world.tick()
    return world


def test_it_is_kept_with_the_release_and_shown() -> None:
    world = releasing_by(Author(manager="argocd-controller", cause="JIRA-7"))
    assert world.status.release is not None
    assert world.status.release.by is not None
    world.run(settled)
    assert world.status.history[0].by == Author(manager="argocd-controller", cause="JIRA-7")
    (row,) = [each for each in history.entries(picture(world)) if each["version"] == "v2"]
    assert row["by"] == '"JIRA-7" by argocd-controller'
    assert "BY" in history.rows(picture(world))[0]


def test_a_roll_back_by_hand_is_by_whoever_asked_not_by_who_wrote_the_spec() -> None:
    world = releasing_by(Author(manager="argocd-controller"))
    world.run(settled)
    world.asked["rollback"] = "v1#2026-11-21T00:00:00+00:00 alice"
    world.tick()
    world.run(settled)
    assert world.live() == "v1"
    by = world.status.history[0].by
    assert by == Author(asked="rollback 2026-11-21T00:00:00+00:00 alice")
    assert history.author(by.model_dump(exclude_none=True)) == by.asked


@pytest.mark.parametrize(("value", "said"), [("#2026-11-21 alice", "by hand (2026-11-21 alice)"), ("now", "by hand")])
def test_who_aborted_is_in_the_message(value: str, said: str) -> None:
    world = releasing_by(Author(manager="m"))
    world.asked["abort"] = value
    world.run(settled)
    assert world.status.last_release is not None
    assert world.status.last_release.message.endswith(said)


@pytest.mark.parametrize(("by", "says"), [(None, None), ({}, None), ({"cause": "x"}, '"x"'), ({"manager": "m"}, "m")])
def test_as_a_sentence(by: dict[str, Any] | None, says: str | None) -> None:
    assert history.author(by) == says
