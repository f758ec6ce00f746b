"""Leader election with a Lease: of several replicas, one works.

The lease is judged by when *we* saw it change, on our own monotonic clock, so clocks need not agree (as client-go's
leaderelection does it). A leader that cannot renew stops before anyone else may take over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import LEASE

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Leadership could not be renewed in time; the process must stop at once."""


class Lease:
    """One Lease object that replicas compete for."""

    def __init__(self, api: Api, namespace: str, name: str, holder: str, duration: float = 15.0) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._duration = duration
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0

    async def acquire(self) -> None:
        """Returns once this replica is the leader."""
        told = False
        while True:
            try:
                if await self._try():
                    log.info("leading as %s", self._holder)
                    return
                if not told:
                    log.info("standing by: another replica leads")
                    told = True
            except ApiError as error:
                log.warning("lease %s/%s: %s", self._namespace, self._name, error)
            await asyncio.sleep(min(2.0, self._duration / 4))

    async def keep(self) -> None:
        """Renews until leadership is lost.

        Raises:
            LeaseLost: no renewal succeeded for two thirds of the lease's duration, or another replica leads.
        """
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._duration / 5)
            try:
                async with asyncio.timeout(self._duration / 3):
                    if not await self._try():
                        raise LeaseLost("another replica leads")
                renewed = time.monotonic()
            except (ApiError, TimeoutError) as error:
                log.warning("the lease could not be renewed: %s", error)
            if time.monotonic() - renewed > self._duration * 2 / 3:
                raise LeaseLost(f"not renewed for {time.monotonic() - renewed:.1f} s")

    async def release(self) -> None:
        """Gives leadership up, so that another replica takes over at once."""
        try:
            current = await self._api.get(LEASE, self._namespace, self._name)
            if current and current["spec"].get("holderIdentity") == self._holder:
                await self._api.replace(LEASE, self._body(current, holder=""))
        except ApiError as error:
            log.warning("the lease could not be released: %s", error)

    async def _try(self) -> bool:
        current = await self._api.get(LEASE, self._namespace, self._name)
        try:
            if current is None:
                await self._api.create(LEASE, self._namespace, self._body(None, self._holder))
                return True
            spec = current["spec"]
            holder = spec.get("holderIdentity") or ""
            mark = (holder, spec.get("renewTime") or "")
            if mark != self._seen:
                self._seen, self._seen_at = mark, time.monotonic()
            expired = time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds") or self._duration)
            if holder not in ("", self._holder) and not expired:
                return False
            await self._api.replace(LEASE, self._body(current, self._holder))
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    def _body(self, current: dict[str, Any] | None, holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict(current["spec"]) if current else {}
        if spec.get("holderIdentity") != holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec |= {"holderIdentity": holder, "renewTime": now, "leaseDurationSeconds": max(1, round(self._duration))}
        metadata = current["metadata"] if current else {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
