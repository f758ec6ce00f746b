"""An address of its own for the candidate, before its first user: `spec.release.steps[].preview`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.cel import Cel
from serinus.api.texts import Hostname


class Preview(ApiModel):
    """The Service NAME-preview leads to the candidate, and so does a route of its own where host names are given.
    Requests that come by it are judged as users' are."""

    hostnames: Annotated[list[Hostname], Field(max_length=4)] = []
    """Host names of the preview, at the Gateways of `spec.route`. Default: only the Service in the cluster."""
    rules = (
        Cel(
            "!has(self.hostnames) || self.hostnames.all(a, self.hostnames.exists_one(b, a == b))",
            "each host name only once: remove the repeated entry",
            field_path=".hostnames",
        ),
    )
