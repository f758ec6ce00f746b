"""Watches the freeze switch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from serinus import telemetry
from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import CONFIG_MAP
from serinus.release import freeze

log = logging.getLogger(__name__)
PERIOD = 5.0
"""Seconds between two looks: one small GET by name, which needs neither list nor watch."""


class FreezeSwitch:
    """What the ConfigMap said last. Until it could be read for the first time, everything is frozen.

    Args:
        namespace: the operator's own.
        changed: called when releases were frozen or set free.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        changed: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._changed = changed
        self._clock = clock
        self._freeze: freeze.Freeze | None = freeze.Freeze("whether they are could not be read yet")

    def frozen(self, namespace: str) -> str | None:
        """Why releases in `namespace` are frozen, or None."""
        found = self._freeze
        return found.told() if found is not None and found.holds(namespace, self._clock()) else None

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Looks once. What cannot be read stays as it was; an operator that may not read has no switch."""
        try:
            found = await self._api.get(CONFIG_MAP, self._namespace, freeze.CONFIG_MAP)
        except ApiError as error:
            if error.status != 403:
                log.warning("the freeze switch cannot be read: %s", error)
                return
            if self._freeze is not None:
                log.warning("there is no freeze switch: the operator may not read ConfigMap %s", freeze.CONFIG_MAP)
            found = None
        before, self._freeze = self._freeze, freeze.Freeze.of(found.get("data")) if found is not None else None
        telemetry.FROZEN.set(self._freeze is not None)
        if self._freeze != before:
            if self._freeze is not None:
                log.warning("releases are frozen: %s", self._freeze.told())
            else:
                log.info("releases are not frozen")
            self._changed()
