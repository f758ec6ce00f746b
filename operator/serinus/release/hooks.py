"""Webhooks as tasks, their bodies, and what an answer means. No I/O: `serinus.errands.hooks` calls them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from serinus.api import API_VERSION
from serinus.api.webhooks import Webhook
from serinus.release.errands import Errand, Result

GRACE = 5.0
"""Seconds beyond the timeout that are left to the edge."""


class Said(StrEnum):
    GO = "go"
    HOLD = "hold"
    NO = "no"
    NOTHING = "nothing"


@dataclass(frozen=True)
class HookTask:
    """Post `body` to `url`."""

    url: str
    body: str
    """JSON."""
    idempotency_key: str
    """The same for every try of one asking."""
    timeout: float


@dataclass(frozen=True)
class HookAnswer:
    """What a webhook said. `again`: seconds after which it wants to be asked again."""

    said: Said
    message: str = ""
    again: float | None = None


def errand(hook: Webhook, key: str, attempt: int, facts: Mapping[str, Any]) -> Errand:
    """One try. The body must not change from look to look: it would be another errand."""
    body = {"apiVersion": API_VERSION, "kind": "ReleaseHook", "name": hook.name, **facts, "idempotencyKey": key}
    text = json.dumps(body, separators=(",", ":"), default=_text)
    task = HookTask(hook.url, text, key, hook.timeout.seconds)
    return Errand(f"{key}/{attempt}", task, hook.timeout.seconds + GRACE)


def answer_of(result: Result) -> HookAnswer:
    """What came of a try; whatever went wrong is no answer."""
    if isinstance(result.value, HookAnswer):
        return result.value
    return HookAnswer(Said.NOTHING, result.problem)


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
