"""The field reference in docs/, generated from the schema of the CRD."""

from __future__ import annotations

from typing import Any


def reference(schema: dict[str, Any]) -> str:
    """The page as Markdown."""
    return "# ModelDeployment\n"
