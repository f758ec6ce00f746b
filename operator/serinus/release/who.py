"""Who asked: for a release by its spec, or by an annotation."""

from __future__ import annotations

from serinus.api.status import Author
from serinus.release.draft import Draft

_LONGEST = 200


def author(draft: Draft) -> Author | None:
    """Who asked for the release that begins now."""
    if draft.status.override is not None:
        said = signature(draft.status.acted.get("rollback", ""))
        return Author(asked=f"rollback {said}".strip())
    return draft.given.author


def signature(value: str) -> str:
    """What an annotation's value says of who asked and when: whatever follows the `#`."""
    return " ".join(value.partition("#")[2].split())[:_LONGEST]


def signed(text: str, value: str) -> str:
    """`text` with who asked for it, where the annotation says so."""
    said = signature(value)
    return f"{text} ({said})" if said else text
