"""Kubernetes Events: what `kubectl describe` shows people."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from typing import Any

from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import EVENT
from serinus.release.observed import Note

log = logging.getLogger(__name__)
NOTE_LENGTH = 1024
CONTROLLER = "serving.serinus.dev/operator"


class Events:
    """Writes Events about ModelDeployments. A lost event is logged, never an error."""

    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance[:128]

    async def tell(self, owner: dict[str, Any], note: Note) -> None:
        """Writes one event that regards `owner`."""
        meta = owner["metadata"]
        log.info("%s: %s", note.reason, note.message, extra={"object": f"{meta['namespace']}/{meta['name']}"})
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}", "namespace": meta["namespace"]},
            "eventTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "type": note.type,
            "reason": note.reason,
            "note": note.message[:NOTE_LENGTH],
            "action": note.reason,
            "regarding": {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
        }
        try:
            await self._api.create(EVENT, meta["namespace"], event)
        except ApiError as error:
            log.warning("event %s was not stored: %s", note.reason, error)
