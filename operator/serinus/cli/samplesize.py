"""`serinus sample-size`: how many trials an experiment needs; no cluster, no file."""

from __future__ import annotations

import argparse

from serinus.api.units import Percent
from serinus.cli.picture import CliError
from serinus.evidence.samplesize import sample_size


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said on the command line; shares in percent as in a spec."""
    parser.add_argument("--baseline", required=True, metavar="4%%", help="share of successes of the live version")
    parser.add_argument("--effect", required=True, metavar="0.5%%", help="smallest difference worth finding, in points")
    parser.add_argument("--lower-is-better", action="store_true", help="the candidate should have fewer successes")
    parser.add_argument("--alpha", default="5%", metavar="5%%", help="accepted chance to find what is not there")
    parser.add_argument("--power", default="80%", metavar="80%%", help="chance to find the effect")
    parser.add_argument("--share", type=int, default=50, help="percent of the users who get the candidate")
    parser.add_argument("--design-effect", type=int, default=1, help="trials that tell as much as one")
    parser.add_argument("--per-day", type=float, help="trials of all users per day, for how long it will take")


def text(options: argparse.Namespace) -> str:
    """The answer as lines.

    Raises:
        CliError: an argument is no share, or out of range.
    """
    try:
        shares = {name: _share(name, getattr(options, name)) for name in ("baseline", "effect", "alpha", "power")}
        effect = -shares["effect"] if options.lower_is_better else shares["effect"]
        live, candidate = sample_size(
            shares["baseline"], effect, shares["alpha"], shares["power"], options.share / 100, options.design_effect
        )
    except ValueError as error:
        raise CliError(str(error)) from None
    lines = [f"live       {live} trials", f"candidate  {candidate} trials"]
    if options.per_day:
        days = (live + candidate) / options.per_day
        lines.append(
            f"time       {days:.1f} days at {options.per_day:g} trials a day; maxDuration: {2 * days:.0f}d or more"
        )
    return "\n".join(lines)


def _share(name: str, text: str) -> float:
    try:
        return Percent(text if text.endswith("%") else f"{text}%").fraction
    except ValueError:
        raise ValueError(f"--{name}: write a percentage, for example 4%") from None
