"""Hands a message to its receiver: one POST, within a limit, and no word of the address in any error."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from serinus import telemetry
from serinus.api.notifications import Channel, Notification
from serinus.errands.guard import Guard
from serinus.errands.statuses import lasting
from serinus.notify.text import TemplateProblem, text
from serinus.release.outbox import Delivery, Receipt, fields

log = logging.getLogger(__name__)
TIMEOUT = 10.0
"""Seconds for one call."""
LONGEST_ADDRESS = 4096


class Sender:
    """Does `Delivery` errands.

    Args:
        receivers: folder with a file per receiver, each with an address in it; read at each call, so that a changed
            Secret needs no restart.
        hosts: patterns of the hosts that may be called, as for webhooks; empty: any.
    """

    def __init__(self, receivers: Path | None, hosts: Sequence[str] = (), *, timeout: float = TIMEOUT) -> None:
        self._receivers = receivers
        self._guard = Guard(hosts)
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    async def __call__(self, owner: tuple[str, str], task: object) -> Receipt:
        """Delivers. What goes wrong is part of the receipt."""
        assert isinstance(task, Delivery)
        receipt = await self._deliver(owner, task)
        result = "sent" if not receipt.problem else "refused" if receipt.final else "failed"
        telemetry.NOTIFICATIONS.labels(str(task.message.event), result).inc()
        if receipt.problem:
            log.warning("a message was not delivered: %s", receipt.problem, extra={"object": "/".join(owner)})
        return receipt

    async def _deliver(self, owner: tuple[str, str], task: Delivery) -> Receipt:
        try:
            url = self._address(task.to)
        except (OSError, ValueError) as error:
            return Receipt(str(error))
        if refusal := self._guard.refusal(url, _called(task.to)):
            return Receipt(refusal, final=True)
        body = payload(owner, task)
        headers = {"Idempotency-Key": str(fields(*owner, task.message)["id"])}
        try:
            # A redirect may lead anywhere, so none is followed.
            async with (
                aiohttp.ClientSession(connector=self._guard.connector(), timeout=self._timeout) as session,
                session.post(url, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return Receipt(f"{_called(task.to)} cannot be reached: {type(error).__name__}")
        if 200 <= status < 300:
            return Receipt()
        return Receipt(f"{_called(task.to)} answered {status}", final=lasting(status))

    def _address(self, to: Notification) -> str:
        if to.url is not None:
            return to.url
        name = to.receiver or ""
        if self._receivers is None:
            raise ValueError(f"the operator keeps no receivers (chart value notifications.secretName): {name!r}")
        try:
            found = (self._receivers / name).read_text()[:LONGEST_ADDRESS].strip()
        except OSError as error:
            raise ValueError(f"the operator keeps no receiver {name!r}: {error.strerror}") from None
        if not found.startswith(("http://", "https://")):
            raise ValueError(f"the receiver {name!r} holds no http:// or https:// address")
        return found


def payload(owner: tuple[str, str], task: Delivery) -> dict[str, str | int]:
    """The JSON object that is sent."""
    known = fields(*owner, task.message)
    slack = task.to.type is Channel.SLACK
    try:
        said = text(task.to.template, known, slack=slack)
    except TemplateProblem as error:
        # A message in other words is better than none.
        said = f"{text(None, known, slack=slack)} (the template cannot be used: {error})"
    return {"text": said} if slack else {**known, "text": said}


def _called(to: Notification) -> str:
    return f"receiver {to.receiver}" if to.receiver else "the receiver's url"
