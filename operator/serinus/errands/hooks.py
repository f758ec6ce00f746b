"""Calls webhooks: one POST, a bounded answer, no redirects, and never a cloud's metadata service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from serinus.errands.edge import ErrandError, Key
from serinus.errands.guard import Guard
from serinus.errands.statuses import lasting
from serinus.release.hooks import HookAnswer, HookTask, Said

ANSWER_BYTES = 64 << 10
SHOWN = 200
"""Characters of a webhook's message that are kept."""


class HookCaller:
    """Does `HookTask`s.

    Args:
        hosts: patterns such as *.example.com of the hosts that may be called; empty: any.
    """

    def __init__(self, hosts: Sequence[str] = ()) -> None:
        self._guard = Guard(hosts)

    async def run(self, owner: Key, task: object) -> HookAnswer:
        """One call.

        Raises:
            ErrandError: nobody answered.
        """
        assert isinstance(task, HookTask)
        if refusal := self._guard.refusal(task.url):
            return HookAnswer(Said.NO, refusal)
        body = json.dumps({**json.loads(task.body), "namespace": owner[0]}, separators=(",", ":"))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f"{owner[0]}/{owner[1]}/{task.idempotency_key}",
            "User-Agent": "serinus-operator",
        }
        limit = aiohttp.ClientTimeout(total=task.timeout)
        try:
            async with (
                aiohttp.ClientSession(connector=self._guard.connector(), timeout=limit) as session,
                session.post(task.url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                return _said(answer, await answer.content.read(ANSWER_BYTES))
        except TimeoutError as error:
            raise ErrandError(f"no answer in {task.timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ErrandError(str(error)[:SHOWN] or type(error).__name__) from error


def _said(answer: aiohttp.ClientResponse, body: bytes) -> HookAnswer:
    told = _told(body)
    message = str(told.get("message", ""))[:SHOWN]
    status = answer.status
    if 200 <= status < 300:
        if status == 202 or told.get("hold") is True:
            return HookAnswer(Said.HOLD, message, _seconds(answer.headers.get("Retry-After")))
        return HookAnswer(Said.GO, message)
    shown = f"HTTP {status}" + (f": {message}" if message else "")
    if not lasting(status):
        return HookAnswer(Said.NOTHING, shown)
    return HookAnswer(Said.NO, f"{shown}: redirects are not followed" if status < 400 else shown)


def _told(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() and len(text) < 7 else None
