"""`spec.release.webhooks`: others who are asked before a release goes on, or told how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.cel import Matching
from serinus.api.texts import DnsLabel
from serinus.api.units import Duration, Limits


class HookTime(StrEnum):
    BEFORE = "Before"
    STEP = "Step"
    AFTER = "After"
    ROLL_BACK = "RollBack"


class FailurePolicy(StrEnum):
    FAIL = "Fail"
    IGNORE = "Ignore"
    HOLD = "Hold"


HookUrl = Annotated[
    str,
    Matching(
        r"^https?://[A-Za-z0-9.:\[\]-]+(/[!#%-~]*)?$",
        "write http://HOST/PATH or https://HOST/PATH, without spaces, $, user name or password",
        512,
        ((r"^https?://[^/]*@", "write the address without user name and password"),),
    ),
]
"""Where a webhook is called."""


class Webhook(ApiModel):
    """A URL that gets a JSON document by POST (docs/gates.md)."""

    name: DnsLabel
    """Name in status, events and messages."""
    url: HookUrl
    """Where it is posted to. Redirects are not followed."""
    when: Annotated[list[HookTime], Field(min_length=1, max_length=4)]
    """Before: ahead of the first step. Step: a step of any kind has passed. After: promoted. RollBack: rolled back or
    failed. The first two are asked, the others told."""
    timeout: Annotated[
        Duration,
        Limits(Duration, ">=", "100ms", "write 100ms or more, for example 10s"),
        Limits(Duration, "<=", "1m", "write 1m or less; who needs longer answers 202 and is asked again"),
    ] = Duration("10s")
    """Longest time for an answer."""
    failure_policy: FailurePolicy = FailurePolicy.FAIL
    """What a refusal (4xx), or no answer after five tries, does to the release: end it, nothing, or hold it."""


class HookState(StrEnum):
    ASKED = "Asked"
    ALLOWED = "Allowed"
    IGNORED = "Ignored"
    REFUSED = "Refused"


class HookCall(ApiModel):
    """A webhook that was called, and what it said."""

    name: str
    when: HookTime
    step: int = 0
    state: HookState = HookState.ASKED
    asked: int = 1
    """How often it was asked; those that answer `hold` are asked again."""
    attempt: int = 1
    """Tries of this asking."""
    at: datetime
    retry_at: datetime | None = None
    message: str | None = None
    evidence: str | None = None
    """What was known when it was first asked."""


class Notice(ApiModel):
    """The end of a release that somebody is still to be told of."""

    name: str
    when: HookTime
    revision: str
    finished_at: datetime
    attempt: int = 1
    retry_at: datetime | None = None
