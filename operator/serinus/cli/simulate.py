"""`serinus simulate`: a policy against recorded or invented traffic, without a cluster."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serinus.api.units import Duration, Percent
from serinus.cli import render
from serinus.cli.output import dump, table
from serinus.cli.picture import CliError
from serinus.simulation.run import BEGAN, Run, Spread, Summary, run, summary
from serinus.simulation.scenario import Clumps, Scenario, Version, simulated
from serinus.simulation.traffic import Profile, Rate, TrafficError, invented, recorded

_MOST = 10_000
_DAY = "1d"


def _share(text: str) -> Percent:
    if not re.fullmatch(Percent.pattern, text):
        raise argparse.ArgumentTypeError(f"{text!r}: {Percent.advice}")
    return Percent(text)


def _time(text: str) -> Duration:
    if not re.fullmatch(Duration.pattern, text):
        raise argparse.ArgumentTypeError(f"{text!r}: {Duration.advice}")
    return Duration(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add = parser.add_argument
    add("-f", "--file", required=True, help="YAML file with a ModelDeployment: the version to be released")
    add("-o", "--output", choices=("table", "json", "yaml"), default="table")
    add("--runs", type=int, default=1, metavar="N", help="so many releases, each with another seed")
    add("--seed", type=int, default=1, help="seed of the first run")
    add("--rate", type=float, default=100.0, help="requests per second of all users (100)")
    add("--profile", choices=list(Profile), default=Profile.CONSTANT, help="how the rate goes up and down")
    add("--traffic", metavar="CSV", help="recorded traffic: columns time and rate (requests/s)")
    add("--errors", type=_share, default=Percent("0%"), metavar="SHARE", help="of the candidate's requests, e.g. 5%%")
    add("--slow", type=_share, default=Percent("0%"), metavar="SHARE", help="of its requests slower than slo.p99")
    add("--live-errors", type=_share, default=Percent("0%"), metavar="SHARE")
    add("--live-slow", type=_share, default=Percent("0%"), metavar="SHARE")
    add("--clumps", choices=list(Clumps), default=Clumps.NONE, help="bad requests come alone, by batch, or in bursts")
    add("--bad-after", type=_time, default=Duration("0"), metavar="TIME", help="until then it is as the live one")
    add("--start", type=_time, default=Duration("30s"), metavar="TIME", help="until a pod is ready (30s)")
    add("--scrape", type=_time, default=Duration("5s"), metavar="TIME", help="Prometheus's interval (5s)")
    add("--fails", metavar="REASON[@TIME]", help="its pods fail, e.g. CrashLoop@20s")
    add("--outage", action="append", default=[], metavar="FROM-TO", help="Prometheus is away, e.g. 5m-8m")
    add("--limit", type=_time, default=Duration(_DAY), metavar="TIME", help="simulated time at most (1d)")


def command(options: argparse.Namespace) -> int:
    """Simulates and prints. Raises CliError."""
    if not 1 <= options.runs <= _MOST:
        raise CliError(f"--runs must be 1 to {_MOST}")
    document = render.read(options.file)[0]
    spec, granted = simulated(render.parsed(document))
    scenario = _scenario(options)
    name = (document.get("metadata") or {}).get("name", "model")
    runs = [run(spec, scenario, options.seed + number, name) for number in range(options.runs)]
    whole = summary(runs, scenario.breaks(spec))
    if options.output == "table":
        print("\n".join(_lines(runs, whole, granted)))
    else:
        print(dump(_data(runs, whole, granted), options.output))
    return 0


def _scenario(options: argparse.Namespace) -> Scenario:
    try:
        reason, _, after = (options.fails or "").partition("@")
        return Scenario(
            rate=_rate(options),
            candidate=Version(options.errors.fraction, options.slow.fraction),
            live=Version(options.live_errors.fraction, options.live_slow.fraction),
            bad_after=options.bad_after.seconds,
            clumps=Clumps(options.clumps),
            start=options.start.seconds,
            scrape=options.scrape.seconds,
            failure=reason or None,
            failure_after=Duration(after or "0").seconds,
            outages=tuple(_outage(each) for each in options.outage),
            limit=options.limit.seconds,
        )
    except (ValueError, TrafficError) as error:
        raise CliError(f"{options.traffic}: {error}" if isinstance(error, TrafficError) else str(error)) from None


def _rate(options: argparse.Namespace) -> Rate:
    if options.traffic is None:
        if not options.rate >= 0:
            raise CliError("--rate must be 0 or more")
        return invented(Profile(options.profile), options.rate)
    try:
        return recorded(Path(options.traffic).read_text().splitlines())
    except OSError as error:
        raise CliError(f"{options.traffic}: {error.strerror}") from None


def _outage(text: str) -> tuple[float, float]:
    start, dash, end = text.partition("-")
    if not dash or Duration(start).seconds >= Duration(end).seconds:
        raise CliError(f"--outage {text}: write two times with a dash, for example 5m-8m")
    return Duration(start).seconds, Duration(end).seconds


def _lines(runs: Sequence[Run], whole: Summary, granted: Sequence[str]) -> list[str]:
    first = runs[0]
    shown = [f"taken for granted: {each}" for each in granted]
    shown += ["timeline of the first run"] if len(runs) > 1 else []
    rows = [["TIME", "PHASE", "WEIGHT", "REQUESTS", "REASON", ""]]
    for moment in first.timeline:
        at = _figure((moment.at - BEGAN).total_seconds(), seconds=True)
        rows.append(
            [f"+{at}", moment.phase, f"{moment.weight}%", str(moment.requests), moment.reason or "-",
             moment.message or ""]
        )  # fmt: skip
    shown += [*table(rows).splitlines(), ""]
    if len(runs) == 1:
        shown.append(f"verdict            {first.outcome} ({first.reason}) after {Duration.of(round(first.seconds))}")
        if first.detected is not None:
            shown.append(f"time to detect     {Duration.of(round(first.detected))}")
        shown.append(f"requests exposed   {first.exposed:,}, of which bad {first.bad:,}")
        return shown
    deserved = "should be rolled back" if whole.should_roll_back else "keeps what was promised"
    shown.append(f"{whole.runs} runs; the candidate {deserved}")
    shown += [f"  {count / whole.runs:6.1%}  {outcome}" for outcome, count in whole.outcomes.items()]
    what = "missed" if whole.should_roll_back else "rolled back by mistake"
    shown.append(f"{what}: {whole.wrong} of {whole.runs} (below {whole.wrong_share_below:.2%} with 97.5 % confidence)")
    figures = [["", "MEDIAN", "P95", "LARGEST"]]
    for title, spread, seconds in (
        ("time to the end", whole.seconds, True),
        ("time to detect", whole.detection, True),
        ("requests exposed", whole.exposed, False),
        ("bad ones of them", whole.bad, False),
    ):
        if spread is not None:
            figures.append([title, *(_figure(each, seconds) for each in (spread.median, spread.p95, spread.largest))])
    return [*shown, "", *table(figures).splitlines()]


def _figure(value: float, seconds: bool) -> str:
    return (str(Duration.of(round(value))) if value >= 1 else "0s") if seconds else f"{round(value):,}"


def _data(runs: Sequence[Run], whole: Summary, granted: Sequence[str]) -> dict[str, Any]:
    def spread(found: Spread | None) -> dict[str, float] | None:
        return asdict(found) if found else None

    return {
        "takenForGranted": list(granted),
        "summary": {
            "runs": whole.runs,
            "shouldRollBack": whole.should_roll_back,
            "outcomes": whole.outcomes,
            "reasons": whole.reasons,
            "wrong": whole.wrong,
            "wrongShareBelow": whole.wrong_share_below,
            "seconds": spread(whole.seconds),
            "detectionSeconds": spread(whole.detection),
            "exposedRequests": spread(whole.exposed),
            "badRequests": spread(whole.bad),
        },
        "runs": [
            {
                "outcome": each.outcome, "reason": each.reason, "message": each.message, "seconds": each.seconds,
                "detectionSeconds": each.detected, "exposedRequests": each.exposed, "badRequests": each.bad,
            }
            for each in runs
        ],
        "timeline": [
            {
                "seconds": (each.at - BEGAN).total_seconds(), "phase": each.phase, "weight": each.weight,
                "requests": each.requests, "reason": each.reason, "message": each.message,
            }
            for each in runs[0].timeline
        ],
    }  # fmt: skip
