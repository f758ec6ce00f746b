"""`spec.release.notifications`: who is told what of a release."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.cel import Cel, Matching
from serinus.api.texts import DnsLabel


class Channel(StrEnum):
    SLACK = "Slack"
    WEBHOOK = "Webhook"


class Happening(StrEnum):
    """What people are told of."""

    STARTED = "Started"
    STEP = "Step"
    APPROVAL_NEEDED = "ApprovalNeeded"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"
    EVIDENCE_MISSING = "EvidenceMissing"


Url = Annotated[
    str,
    Matching(
        r"^https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/[^\s]*)?$",
        "write an http:// or https:// address without a user name, for example https://hooks.example.com/releases",
        1024,
    ),
]


class Notification(ApiModel):
    """One who is told. Lost messages never hold a release."""

    type: Channel
    """Slack: a JSON object with `text`, as Slack, Mattermost and others take it. Webhook: a JSON object with every
    field."""
    receiver: DnsLabel | None = None
    """Name of an address that whoever runs the operator keeps for it (chart value `notifications.secretName`): so no
    address with a token in it is ever written into a specification."""
    url: Url | None = None
    """The address itself, where it is no secret."""
    events: Annotated[list[Happening], Field(min_length=1, max_length=7)] = list(Happening)
    """What to tell. Default: everything."""
    template: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """The text, in Jinja's syntax, with the names namespace, name, event, version, revision, weight, step, reason,
    message and at; `if` and simple filters, no loops."""
    rules = (
        Cel(
            "has(self.receiver) != has(self.url)",
            "write either receiver, the name of an address that the operator keeps, or url",
            field_path=".receiver",
        ),
    )
