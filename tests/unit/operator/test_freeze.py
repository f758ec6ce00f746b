"""The freeze switch: frozen until it was read once, kept where it cannot be read, and told when it changes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from serinus.cluster.client import Api, ApiError
from serinus.cluster.freeze import FreezeSwitch

NOW = datetime(2026, 11, 27, tzinfo=UTC)


class Answers(Api):
    """An API server that gives prepared answers to GETs."""

    def __init__(self, *answers: dict[str, Any] | int | None) -> None:
        self._answers = iter(answers)

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        assert (kind.kind, namespace, name) == ("ConfigMap", "serinus-system", "serinus-freeze")
        answer = next(self._answers)
        if isinstance(answer, int):
            raise ApiError(answer, "refused")
        return answer


def story(*answers: dict[str, Any] | int | None) -> tuple[list[str | None], int]:
    """What `frozen` says at first and after each look, and how often a change was told."""
    changes: list[None] = []
    switch = FreezeSwitch(Answers(*answers), "serinus-system", lambda: changes.append(None), lambda: NOW)
    said = [switch.frozen("team")]
    for _ in answers:
        asyncio.run(switch.look())
        said.append(switch.frozen("team"))
    return said, len(changes)


def test_on_and_off() -> None:
    said, changes = story(None, {"data": {"reason": "Black Friday"}}, {"data": {"reason": "Black Friday"}}, None)
    assert said == ["whether they are could not be read yet", None, "Black Friday", "Black Friday", None]
    assert changes == 3


def test_an_api_server_that_is_away_changes_nothing() -> None:
    assert story({"data": {"reason": "x"}}, 0, 500)[0][1:] == ["x", "x", "x"]
    assert story(0, 500)[0][-1] == "whether they are could not be read yet"


def test_without_the_permission_there_is_no_switch() -> None:
    assert story(403)[0][-1] is None


def test_other_namespaces_and_other_times() -> None:
    assert story({"data": {"namespaces": "shop"}})[0][-1] is None
    assert story({"data": {"until": "2026-11-26"}})[0][-1] is None
