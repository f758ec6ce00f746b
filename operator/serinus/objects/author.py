"""Who changed a specification, as far as the API server itself keeps it.

No webhook looks at requests, so the user behind a change is unknown. What is known: `metadata.managedFields` names the
program (field manager) that last wrote parts of the spec and when, and the API server writes that itself. And people
may say why in the annotation `kubernetes.io/change-cause`, as for Deployments; that anybody who may edit can write.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from serinus.api.status import Author

CAUSE = "kubernetes.io/change-cause"
_LONGEST = 256


def author(meta: Mapping[str, Any]) -> Author | None:
    """Who wrote the spec last; None where neither is known."""
    entries = [each for each in meta.get("managedFields") or () if _writes_spec(each)]
    last = max(entries, key=lambda each: str(each.get("time", "")), default=None)
    cause = (meta.get("annotations") or {}).get(CAUSE)
    if last is None and not cause:
        return None
    at = last.get("time") if last else None
    return Author(
        manager=str(last.get("manager", ""))[:_LONGEST] if last else None,
        at=datetime.fromisoformat(at) if at else None,
        cause=cause[:_LONGEST] if cause else None,
    )


def compact(managed: Any) -> list[dict[str, Any]]:
    """Of managedFields, what `author` reads: the rest is large, and nobody here asks for it."""
    return [
        {"manager": each.get("manager"), "time": each.get("time"), "fieldsV1": {"f:spec": {}}}
        for each in managed or ()
        if _writes_spec(each)
    ]


def _writes_spec(entry: Mapping[str, Any]) -> bool:
    return not entry.get("subresource") and "f:spec" in (entry.get("fieldsV1") or {})
