"""`serinus freeze` and `serinus unfreeze`: writes the ConfigMap that stops every release (`release.freeze`).

A freeze only grows here: one that is added to another covers both places, for the longer of both times and for both
reasons. What makes it smaller is `unfreeze`, said by somebody.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from serinus.api.units import Duration
from serinus.cli.output import FORMATS, dump
from serinus.cli.picture import CliError, UsageError
from serinus.objects.context import Object
from serinus.release.freeze import CONFIG_MAP, Freeze

if TYPE_CHECKING:
    from serinus.cli.access import Cluster

HOME = "serinus-system"
LONGEST_REASON = 200
_DURATION = TypeAdapter(Duration)
_ATTEMPTS = 3
"""Others may write at the same moment."""


@dataclass(frozen=True)
class Request:
    """What somebody asks for. `namespace` None: everywhere."""

    namespace: str | None
    reason: str = ""
    until: datetime | None = None


def add_options(freeze: argparse.ArgumentParser, unfreeze: argparse.ArgumentParser) -> None:
    """The grammar of both verbs."""
    freeze.add_argument("--reason", required=True, help="shown wherever a release waits for it")
    freeze.add_argument("--until", metavar="TIME", help="2026-12-01T08:00:00+01:00, or a time from now such as 36h")
    for added in (freeze, unfreeze):
        added.add_argument("-n", "--namespace", default=argparse.SUPPRESS, help="releases of this namespace")
        added.add_argument("-A", "--all-namespaces", action="store_true", help="every release")
        added.add_argument("--context", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        added.add_argument("--operator-namespace", help=f"where the operator runs; default: {HOME}")
        added.add_argument("--dry-run", action="store_true", help="the API server checks it and stores nothing")
        added.add_argument("-o", "--output", choices=FORMATS, default="table", help="json, yaml: the ConfigMap")
    freeze.set_defaults(command=_freeze)
    unfreeze.set_defaults(command=_unfreeze)


def place(options: argparse.Namespace) -> str | None:
    """The namespace that is meant, None for all.

    Raises:
        UsageError: neither or both were said: nobody shall stop a cluster, or think that he has, by a default.
    """
    if bool(options.namespace) == options.all_namespaces:
        raise UsageError(f"say where: {options.verb} -n NAMESPACE for one namespace, or {options.verb} -A for all")
    return options.namespace or None


def home(options: argparse.Namespace) -> str:
    """The operator's namespace."""
    return getattr(options, "operator_namespace", None) or os.environ.get("SERINUS_OPERATOR_NAMESPACE") or HOME


def moment(text: str, now: datetime) -> datetime:
    """A time that somebody wrote: an instant with an offset, or a duration from `now`.

    Raises:
        UsageError: it is neither, or over already.
    """
    try:
        return now + timedelta(seconds=_DURATION.validate_python(text).seconds)
    except (ValidationError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise UsageError(
            f"--until {text!r}: write a time with its offset, such as 2026-12-01T08:00:00+01:00, or one from now, "
            "such as 36h"
        )
    if found <= now:
        raise UsageError(f"--until {text!r} is over already")
    return found


def frozen(data: Mapping[str, str] | None, wanted: Request, now: datetime) -> dict[str, str]:
    """A ConfigMap's data after `wanted` was added to what it holds; `data` None where there is none."""
    reason = " ".join(wanted.reason.split())
    if not reason or len(reason) > LONGEST_REASON:
        raise UsageError(f"--reason: write one, of at most {LONGEST_REASON} characters")
    names = {wanted.namespace} if wanted.namespace else set[str]()
    until = wanted.until
    if data is not None and not _over(known := Freeze.of(data), now):
        names = names | known.namespaces if names and known.namespaces else set()
        until = max(until, known.until) if until and known.until else None
        before = (data.get("reason") or "").strip()
        both = f"{before}; {reason}" if before and reason not in before.split("; ") else before or reason
        reason = both if len(both) <= LONGEST_REASON else reason
    made = {"reason": reason}
    if until is not None:
        made["until"] = until.isoformat(timespec="seconds")
    if names:
        made["namespaces"] = ",".join(sorted(names))
    return made


def thawed(data: Mapping[str, str], namespace: str | None) -> dict[str, str] | None:
    """A ConfigMap's data without the freeze of `namespace`; None where nothing is left of it.

    Raises:
        CliError: it holds everywhere, and only one namespace is to be set free.
    """
    names = Freeze.of(data).namespaces
    if namespace is None:
        return None
    if not names:
        raise CliError("the freeze holds in all namespaces: unfreeze -A ends it, no namespace can be left out of it")
    left = sorted(names - {namespace})
    return {**data, "namespaces": ",".join(left)} if left else None


def sentence(data: Mapping[str, str] | None) -> str:
    """What holds, for people."""
    if data is None:
        return "releases are not frozen"
    found = Freeze.of(data)
    where = ", ".join(sorted(found.namespaces)) or "all namespaces"
    return f"releases are frozen in {where}: {found.told()}"


def _over(found: Freeze, now: datetime) -> bool:
    return found.until is not None and found.until <= now


async def _freeze(options: argparse.Namespace, cluster: Cluster) -> int:
    now = datetime.now(UTC)
    wanted = Request(place(options), options.reason, moment(options.until, now) if options.until else None)
    if options.operator_namespace is None and not await cluster.runs_operator(home(options)):
        raise CliError(f"no operator runs in namespace {home(options)!r}: say where it does with --operator-namespace")
    by = f"{await cluster.user()} at {now.isoformat(timespec='seconds')}"
    return await _write(options, cluster, lambda data: {**frozen(data, wanted, now), "by": by})


async def _unfreeze(options: argparse.Namespace, cluster: Cluster) -> int:
    namespace = place(options)
    return await _write(options, cluster, lambda data: thawed(data, namespace) if data is not None else None)


Change = Callable[[Mapping[str, str] | None], dict[str, str] | None]


async def _write(options: argparse.Namespace, cluster: Cluster, change: Change) -> int:
    from serinus.cluster.client import ApiError

    where = home(options)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            stored = await cluster.switch(where)
            data = None if stored is None else dict(stored.get("data") or {})
            after = change(data)
            if after != data:
                await cluster.turn(where, stored, after, dry_run=options.dry_run)
        except ApiError as error:
            if error.status == 409 and attempt < _ATTEMPTS:
                continue
            raise await _refused(error, cluster, where) from None
        _tell(options, where, after)
        return 0
    raise AssertionError("unreachable")


async def _refused(error: Exception, cluster: Cluster, where: str) -> CliError:
    status = getattr(error, "status", 0)
    if status == 403:
        return CliError(
            f"{await cluster.user()} may not change ConfigMap {CONFIG_MAP} in namespace {where}: ask whoever runs the "
            "operator to do it, or for the Role in docs/gates.md"
        )
    if status == 404:
        return CliError(f"there is no namespace {where!r}: say where the operator runs with --operator-namespace")
    return CliError(str(error))


def _tell(options: argparse.Namespace, where: str, data: Mapping[str, str] | None) -> None:
    note = " (dry run, nothing was stored)" if options.dry_run else ""
    if options.output == "table":
        print(f"{sentence(data)}{note}")
        return
    print(dump(config_map(where, data) if data is not None else {}, options.output))
    print(f"{sentence(data)}{note}", file=sys.stderr)


def config_map(where: str, data: Mapping[str, str]) -> Object:
    """The switch as an object, as it can be kept in git."""
    meta = {"name": CONFIG_MAP, "namespace": where}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(data)}


async def shown(options: argparse.Namespace, cluster: Cluster) -> str | None:
    """The freeze that holds where `cluster` looks, for `serinus status`; None where none does or nobody may say."""
    from serinus.cluster.client import ApiError

    try:
        found = await cluster.switch(home(options))
    except ApiError:
        return None
    if found is None:
        return None
    freeze = Freeze.of(found.get("data"))
    if not freeze.holds(cluster.namespace, datetime.now(UTC)):
        return None
    return sentence(found.get("data") or {})
