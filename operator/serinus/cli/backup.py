"""`serinus export` and `serinus restore`: what a rebuilt cluster must know so that nothing is released again.

A backup of the ModelDeployments alone has specifications and no status: their versions go through a release as if they
were the first. An export keeps what is proved: which revision was live, what each kept revision was, how releases
ended, and which revisions failed. What was under way is not kept: it starts anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serinus.api import API_VERSION, KIND
from serinus.api.spec import ModelDeploymentSpec
from serinus.api.status import ModelDeploymentStatus
from serinus.cli.picture import CliError, Picture
from serinus.objects.context import Context, Object
from serinus.objects.names import REVISION_LABEL
from serinus.objects.read import observe, revision_number
from serinus.objects.workload import controller_revision
from serinus.release.revisions import Revision

_KEPT = ("live", "override", "last_release", "history", "failed_revisions", "acted", "messages")
"""What of a status is true in another cluster too."""


def exported(picture: Picture) -> list[Object]:
    """A ModelDeployment without its spec, but with what is proved, and its revisions."""
    meta = picture.owner["metadata"]
    status = ModelDeploymentStatus.model_validate(picture.owner.get("status") or {})
    kept = ModelDeploymentStatus(**{name: getattr(status, name) for name in _KEPT})
    items: list[Object] = [
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "status": kept.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
        }
    ]
    for obj in sorted(picture.children.of("ControllerRevision").values(), key=revision_number):
        place = {"name": obj["metadata"]["name"], "namespace": meta["namespace"], "labels": obj["metadata"]["labels"]}
        items.append(
            {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": place,
                "revision": revision_number(obj),
                "data": obj["data"],
            }
        )
    return items


def listed(items: Iterable[Object]) -> str:
    """The file."""
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": list(items)}, sort_keys=False)


@dataclass(frozen=True)
class Backup:
    """What an export holds of one ModelDeployment."""

    namespace: str
    name: str
    status: ModelDeploymentStatus
    revisions: tuple[tuple[int, Revision], ...]
    """With their sequence numbers."""


def read(path: str) -> list[Backup]:
    """The export in a file. A revision that is not what its name says is left out; that must not be the live one.

    Raises:
        CliError: it is not an export, or somebody changed it.
    """
    try:
        document = yaml.safe_load(Path(path).read_text())
        items = document["items"]
        owners = [each for each in items if each["kind"] == KIND]
        return [_backup(owner, items) for owner in owners]
    except (OSError, yaml.YAMLError) as error:
        raise CliError(f"{path}: {error}") from None
    except ValidationError as error:
        raise CliError(f"{path}: written by another version of Serinus: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise CliError(f"{path}: not a file of `serinus export`") from None


def _backup(owner: Object, items: list[Any]) -> Backup:
    meta = owner["metadata"]
    place = f"{meta['namespace']}/{meta['name']}"
    status = ModelDeploymentStatus.model_validate(owner.get("status") or {})
    found = []
    for obj in items:
        if obj["kind"] != "ControllerRevision" or obj["metadata"]["namespace"] != meta["namespace"]:
            continue
        name = obj["metadata"]["labels"][REVISION_LABEL]
        if obj["metadata"]["name"] != f"{meta['name']}-{name}":
            continue
        revision = Revision.restore(name, obj["data"])
        if Revision.of(meta["name"], revision.model, revision.runtime).name != name:
            if status.live is not None and status.live.revision == name:
                raise CliError(f"{place}: revision {name} is not what its name stands for: the file was changed")
            continue
        found.append((int(obj["revision"]), revision))
    live = status.live
    if live is not None and (live.revision, live.digest) not in {(each.name, each.model.digest) for _, each in found}:
        raise CliError(f"{place}: the file does not hold revision {live.revision} with digest {live.digest}")
    return Backup(meta["namespace"], meta["name"], status, tuple(found))


def objects(backup: Backup, picture: Picture) -> list[Object]:
    """What to write for a ModelDeployment as it stands in the cluster: revisions, then the status.

    Raises:
        CliError: something is live there already, or the cluster knows one of the revisions as something else.
    """
    meta = picture.owner["metadata"]
    place = f"{meta['namespace']}/{meta['name']}"
    now = ModelDeploymentStatus.model_validate(picture.owner.get("status") or {})
    if now.live is not None:
        raise CliError(f"{place}: version {now.live.version} is live; a status is restored only where nothing is")
    if backup.status.live is None:
        raise CliError(f"{place}: nothing was live when this was exported; there is nothing to restore")
    known = observe(meta["name"], picture.children).snapshots
    for _, revision in backup.revisions:
        if revision.name in known and known[revision.name] != revision:
            raise CliError(f"{place}: the cluster knows revision {revision.name} as something else")
    spec = ModelDeploymentSpec.model_validate(picture.owner["spec"])
    context = Context(meta["namespace"], meta["name"], meta["uid"], spec)
    made = [controller_revision(context, revision, number) for number, revision in backup.revisions]
    status: Object = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        # Whatever the operator or anybody else writes in between makes this fail instead of being overwritten.
        "metadata": {name: meta[name] for name in ("name", "namespace", "resourceVersion")},
        "status": backup.status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    return [*made, status]
