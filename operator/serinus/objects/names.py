"""Names, labels and annotations of everything the operator owns."""

from __future__ import annotations

from collections.abc import Mapping

from serinus.api import GROUP
from serinus.release.phases.shadowing import JOINER

MANAGER = "serinus"
"""Field manager of every server-side apply."""
DEPLOYMENT_LABEL = f"{GROUP}/deployment"
REVISION_LABEL = f"{GROUP}/revision"
VERSION_LABEL = f"{GROUP}/version"
VERBS = ("pause", "promote", "approve", "abort", "rollback", "retry")
"""What people ask for by annotation, each as GROUP/VERB."""
REVISION_LENGTH = 10


def child(deployment: str, revision: str) -> str:
    """Name of a revision's Deployment, Service, autoscaler and ControllerRevision."""
    return f"{deployment}-{revision}"


def joiner(deployment: str) -> str:
    """Name of a shadow's joiner, and of the Service before it: pods admit its address to their predictions."""
    return f"{deployment}{JOINER}"


def tap(deployment: str) -> str:
    """Name of the Service that has the addresses of all pods, for a shadow's joiner."""
    return f"{deployment}-shadow-tap"


def revision_in(deployment: str, name: str) -> str | None:
    """The revision in a child's name, or None where it is not one."""
    prefix, _, revision = name.rpartition("-")
    return revision if prefix == deployment and len(revision) == REVISION_LENGTH else None


def labels(deployment: str, revision: str | None = None) -> dict[str, str]:
    """Labels of an owned object."""
    common = {
        "app.kubernetes.io/name": deployment,
        "app.kubernetes.io/managed-by": MANAGER,
        DEPLOYMENT_LABEL: deployment,
    }
    return {**common, REVISION_LABEL: revision} if revision else common


def selector(deployment: str, revision: str) -> dict[str, str]:
    """Labels that select a revision's pods, and never change."""
    return {DEPLOYMENT_LABEL: deployment, REVISION_LABEL: revision}


def asked(annotations: Mapping[str, str] | None) -> dict[str, str]:
    """Value by verb of the annotations that ask for something."""
    found = annotations or {}
    return {verb: found[key] for verb in VERBS if (key := f"{GROUP}/{verb}") in found}
