"""The command line: `serinus VERB NAME`, also as `kubectl serinus VERB NAME`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from serinus.api.status import Outcome
from serinus.cli import backup, explain, freezing, history, render, samplesize, simulate, view
from serinus.cli.output import FORMATS, dump, table, write
from serinus.cli.picture import CliError, Picture, UsageError

if TYPE_CHECKING:
    from serinus.cli.access import Cluster

OK, FAILED, USAGE, ROLLED_BACK, TIMED_OUT = 0, 1, 2, 3, 4
_EVERY = 1.0
"""Seconds between two looks of a live view."""
_EPILOG = """exit codes: 0 done (with --wait: promoted), 1 an error, 2 wrong usage, 3 with --wait: rolled back or
failed, 4 with --wait: still under way when the time was up"""

Command = Callable[[argparse.Namespace, "Cluster"], Awaitable[int]]


async def _status(options: argparse.Namespace, cluster: Cluster) -> int:
    if options.output != "table":
        picture = await cluster.picture(options.name, events=False)
        print(dump(picture.owner.get("status") or {}, options.output))
        return OK
    deadline = datetime.now(UTC).timestamp() + options.timeout
    while True:
        picture = await cluster.picture(options.name)
        picture = dataclasses.replace(picture, frozen=await freezing.shown(options, cluster))
        shown = "\n".join(view.lines(picture))
        clear = "\033[H\033[2J" if options.watch and sys.stdout.isatty() else ""
        print(f"{clear}{shown}", flush=True)
        if not (options.watch or options.wait):
            return OK
        if options.wait and (code := _outcome(picture)) is not None:
            return code
        if options.wait and datetime.now(UTC).timestamp() > deadline:
            print(f"still under way after {options.timeout:g} s", file=sys.stderr)
            return TIMED_OUT
        await asyncio.sleep(_EVERY)


def _outcome(picture: Picture) -> int | None:
    """The exit code for a release that has ended; None while one is under way."""
    _, status = view.parse(picture)
    generation = picture.owner["metadata"].get("generation", 0)
    if status.release is not None or status.observed_generation < generation:
        return None
    last = status.last_release
    return ROLLED_BACK if last is not None and last.outcome is not Outcome.PROMOTED else OK


def _asks(verb: str, said: str) -> Command:
    async def command(options: argparse.Namespace, cluster: Cluster) -> int:
        await cluster.annotate(options.name, verb, await _fresh(cluster, ""))
        print(f"modeldeployment/{options.name} {said}")
        return OK

    return command


async def _rollback(options: argparse.Namespace, cluster: Cluster) -> int:
    picture = await cluster.picture(options.name, events=False)
    found = history.find(picture, options.to)
    await cluster.annotate(options.name, "rollback", await _fresh(cluster, found.name))
    print(f"modeldeployment/{options.name} is asked to go back to version {found.version} ({found.name})")
    return OK


async def _pause(options: argparse.Namespace, cluster: Cluster) -> int:
    await cluster.annotate(options.name, "pause", "true")
    print(f"modeldeployment/{options.name} paused; a failing candidate is still rolled back")
    return OK


async def _resume(options: argparse.Namespace, cluster: Cluster) -> int:
    await cluster.annotate(options.name, "pause", None)
    print(f"modeldeployment/{options.name} resumed")
    return OK


async def _history(options: argparse.Namespace, cluster: Cluster) -> int:
    picture = await cluster.picture(options.name, events=False)
    if options.output == "table":
        print(table(history.rows(picture)))
    else:
        print(
            dump(
                [{**row, "finishedAt": str(row["finishedAt"] or "")} for row in history.entries(picture)],
                options.output,
            )
        )
    return OK


async def _diff(options: argparse.Namespace, cluster: Cluster) -> int:
    picture = await cluster.picture(options.name, events=False)
    text = history.diff(history.find(picture, options.old), history.find(picture, options.new))
    print(text or "no difference")
    return OK


async def _explain(options: argparse.Namespace, cluster: Cluster) -> int:
    picture = await cluster.picture(options.name)
    found = explain.findings(picture)
    if options.output != "table":
        print(dump([each.as_dict() for each in found], options.output))
    elif not found:
        print(f"modeldeployment/{options.name}: nothing is wrong")
    for each in found if options.output == "table" else ():
        print(f"{each.symptom}\n  likely cause: {each.cause}\n  first action: {each.action}\n")
    return OK


async def _report(options: argparse.Namespace, cluster: Cluster) -> int:
    # jinja2 takes a while to load, which no other verb needs.
    from serinus.cli import report

    write(report.html(await cluster.picture(options.name)), options.file or f"{options.name}-report.html")
    return OK


async def _export(options: argparse.Namespace, cluster: Cluster) -> int:
    names = options.names or await cluster.names()
    pictures = [await cluster.picture(name, events=False) for name in names]
    write(backup.listed(item for each in pictures for item in backup.exported(each)), options.file)
    return OK


async def _restore(options: argparse.Namespace, cluster: Cluster) -> int:
    backups = [each for each in backup.read(options.file) if each.namespace == cluster.namespace]
    if not backups:
        raise CliError(f"{options.file} holds nothing of namespace {cluster.namespace!r}")
    code = OK
    for each in backups:
        try:
            made = backup.objects(each, await cluster.picture(each.name, events=False))
        except CliError as error:
            print(f"error: {error}", file=sys.stderr)
            code = FAILED
            continue
        for obj in made if not options.dry_run else ():
            await cluster.write(obj)
        live = each.status.live
        would = "would be" if options.dry_run else "is"
        print(f"modeldeployment/{each.name}: version {live.version if live else '-'} {would} live as it was")
    return code


def _render(options: argparse.Namespace) -> int:
    made = [obj for document in render.read(options.file) for obj in render.objects(document, options.runtime_image)]
    if options.output == "json":
        print(dump({"apiVersion": "v1", "kind": "List", "items": made}, "json"))
    else:
        print("\n---\n".join(dump(obj, "yaml") for obj in made))
    return OK


async def _fresh(cluster: Cluster, value: str) -> str:
    """`value` so that it differs from every earlier one, and says who asked and when."""
    return f"{value}#{datetime.now(UTC).isoformat(timespec='seconds')} {await cluster.user()}"


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    made = argparse.ArgumentParser(prog="serinus", description="Releases of machine-learning models.", epilog=_EPILOG)
    made.add_argument("--context", help="kubeconfig context")
    made.add_argument("-n", "--namespace", help="namespace; default: the context's")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, command: Command, *, output: bool = False) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, epilog=_EPILOG)
        added.add_argument("name", help="name of the ModelDeployment")
        # After the verb, too, as kubectl's users write it.
        added.add_argument("-n", "--namespace", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        added.add_argument("--context", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if output:
            added.add_argument("-o", "--output", choices=FORMATS, default="table")
        added.set_defaults(command=command)
        return added

    status = verb("status", "what is live, what is happening, is it well", _status, output=True)
    status.add_argument("-w", "--watch", action="store_true", help="go on until interrupted")
    status.add_argument("--wait", action="store_true", help="until the release has ended; the exit code says how")
    status.add_argument("--operator-namespace", help=f"where a freeze is looked for; default: {freezing.HOME}")
    status.add_argument("--timeout", type=float, default=3600.0, help="seconds for --wait")
    verb("history", "revisions that are kept, and how their releases ended", _history, output=True)
    diff = verb("diff", "what differs between two revisions", _diff)
    diff.add_argument("old", nargs="?", default="live", help="version, revision, live, candidate or previous")
    diff.add_argument("new", nargs="?", default="candidate")
    verb("explain", "what is wrong, its likely cause, and what to do first", _explain, output=True)
    report = verb("report", "one HTML file: timeline, verdicts and evidence of the releases", _report)
    report.add_argument("-o", "--output", dest="file", metavar="FILE", help="default: NAME-report.html; - prints it")
    verb("promote", "skip the steps that are left", _asks("promote", "is asked to skip the steps that are left"))
    verb("approve", "let a step pass that waits for a person", _asks("approve", "approved"))
    verb("abort", "roll back the release under way", _asks("abort", "is asked to roll back"))
    verb("retry", "try what the spec asks for once more", _asks("retry", "is asked to try again"))
    verb("pause", "hold the release where it is", _pause)
    verb("resume", "let a paused release go on", _resume)
    back = verb("rollback", "make a kept revision live", _rollback)
    back.add_argument("--to", default="previous", help="version, revision or previous")
    invented = verbs.add_parser("simulate", help="a policy against invented or recorded traffic; needs no cluster")
    simulate.add_options(invented)
    export = verbs.add_parser("export", help="what is proved: live revisions, kept ones, history; for `restore`")
    export.add_argument("names", nargs="*", metavar="NAME", help="default: all of the namespace")
    export.add_argument("-o", "--output", dest="file", metavar="FILE", default="-", help="default: prints it")
    restore = verbs.add_parser("restore", help="gives a rebuilt cluster the status back that an export holds")
    restore.add_argument("-f", "--file", required=True, help="a file of `serinus export`")
    restore.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    for added, function in ((export, _export), (restore, _restore)):
        added.add_argument("-n", "--namespace", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        added.add_argument("--context", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        added.set_defaults(command=function)
    freeze = verbs.add_parser("freeze", help="no release starts and no candidate gets more users; roll-backs go on")
    freezing.add_options(freeze, verbs.add_parser("unfreeze", help="releases go on"))
    rendered = verbs.add_parser("render", help="what the operator would apply; needs no cluster")
    rendered.add_argument("-f", "--file", required=True, help="YAML file with a ModelDeployment, - for standard input")
    rendered.add_argument("--runtime-image", default="serinus-runtime")
    rendered.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml")
    samplesize.arguments(verbs.add_parser("sample-size", help="trials that an experiment needs; needs no cluster"))
    return made


async def _with_cluster(options: argparse.Namespace) -> int:
    # The client library takes a second to load, which usage and `render` need not wait for.
    from serinus.cli.access import Cluster
    from serinus.cluster.client import ApiError

    try:
        cluster = await Cluster.connect(options.context, options.namespace)
        try:
            code: int = await options.command(options, cluster)
            return code
        finally:
            await cluster.close()
    except ApiError as error:
        raise CliError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.verb == "render":
            return _render(options)
        if options.verb == "simulate":
            return simulate.command(options)
        if options.verb == "sample-size":
            print(samplesize.text(options))
            return OK
        return asyncio.run(_with_cluster(options))
    except KeyboardInterrupt:
        return OK
    except CliError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILED
    except ValidationError as error:
        print(f"error: the object was written by another version of Serinus: {error}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
