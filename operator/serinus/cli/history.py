"""`serinus history` and `serinus diff`: revisions that are kept, releases that ended, what changed between two."""

from __future__ import annotations

import difflib
from datetime import datetime
from typing import Any

import yaml

from serinus.api.status import ModelDeploymentStatus, ReleaseRecord
from serinus.cli.output import age
from serinus.cli.picture import CliError, Picture
from serinus.cli.view import parse
from serinus.objects.read import observe, revision_number
from serinus.release.revisions import Revision

Row = dict[str, Any]


def entries(picture: Picture) -> list[Row]:
    """One entry per kept revision, the newest first, each with the last release it had."""
    _, status = parse(picture)
    known = observe(picture.name, picture.children).snapshots
    numbers = {
        obj["metadata"]["name"].rpartition("-")[2]: revision_number(obj)
        for obj in picture.children.of("ControllerRevision").values()
    }
    last: dict[str, ReleaseRecord] = {}
    for ended in status.history:
        last.setdefault(ended.revision, ended)
    rows = []
    for name in sorted(known, key=lambda each: -numbers.get(each, 0)):
        revision = known[name]
        record = last.get(name)
        rows.append(
            {
                "number": numbers.get(name, 0),
                "version": revision.version,
                "revision": name,
                "role": _role(status, name),
                "digest": revision.model.digest,
                "outcome": str(record.outcome) if record else None,
                "reason": record.reason if record else None,
                "finishedAt": record.finished_at.isoformat() if record else None,
                "requests": record.requests if record else None,
                "evidence": record.evidence if record else None,
                "by": author(record.by.model_dump(mode="json", exclude_none=True)) if record and record.by else None,
            }
        )
    return rows


def _role(status: ModelDeploymentStatus, revision: str) -> str:
    for role, ref in (("live", status.live), ("candidate", status.candidate), ("previous", status.previous)):
        if ref is not None and ref.revision == revision:
            return role
    return "failed" if revision in status.failed_revisions else ""


def rows(picture: Picture) -> list[list[str]]:
    """`entries` as a table."""
    shown = [["NO", "VERSION", "REVISION", "ROLE", "OUTCOME", "ENDED", "REQUESTS", "DIGEST", "REASON", "BY"]]
    for row in entries(picture):
        ended = age(datetime.fromisoformat(row["finishedAt"]) if row["finishedAt"] else None, picture.now)
        shown.append(
            [
                str(row["number"]), row["version"], row["revision"], row["role"] or "-", row["outcome"] or "-", ended,
                str(row["requests"] if row["requests"] is not None else "-"), row["digest"][:19],
                row["reason"] or "-", row["by"] or "-",
            ]
        )  # fmt: skip
    return shown


def author(by: dict[str, Any] | None) -> str | None:
    """Who asked for a release, in a few words; None where nobody knows."""
    if not by:
        return None
    if by.get("asked"):
        return str(by["asked"])
    cause = f'"{by["cause"]}"' if by.get("cause") else ""
    manager = f"{by['manager']} at {by['at']}" if by.get("manager") and by.get("at") else by.get("manager") or ""
    return " by ".join(each for each in (cause, str(manager)) if each) or None


def find(picture: Picture, wanted: str) -> Revision:
    """The kept revision that a version, a revision or a role names. Raises CliError."""
    known = observe(picture.name, picture.children).snapshots
    _, status = parse(picture)
    roles = {"live": status.live, "candidate": status.candidate, "previous": status.previous}
    ref = roles.get(wanted)
    name = ref.revision if ref else wanted
    if name in known:
        return known[name]
    matching = [revision for revision in known.values() if revision.version == wanted]
    if matching:
        return matching[0]
    there = ", ".join(sorted({revision.version for revision in known.values()}))
    raise CliError(f"no kept revision is called {wanted!r}; there are {there or 'none'}, and live, candidate, previous")


def diff(old: Revision, new: Revision) -> str:
    """A unified diff of two revisions as YAML; empty where nothing differs."""
    before, after = (yaml.safe_dump(each.snapshot(), sort_keys=True).splitlines() for each in (old, new))
    names = [f"{each.version} ({each.name})" for each in (old, new)]
    return "\n".join(difflib.unified_diff(before, after, names[0], names[1], lineterm="", n=2))
