"""The table and the RESULT line."""

from __future__ import annotations

from collections.abc import Mapping

from bench.matrix.cells import CANDIDATES, DISTURBANCES, Cell, Outcome, cells, kept
from bench.matrix.strategies import STRATEGIES


def table(found: Mapping[str, Outcome]) -> str:
    """Markdown: strategies and candidates down, disturbances across. What is not as it must be is bold."""
    lines = ["| strategy | candidate | " + " | ".join(DISTURBANCES) + " |", "|---|---|" + "---|" * len(DISTURBANCES)]
    for strategy in STRATEGIES:
        for candidate in CANDIDATES:
            shown = [_shown(Cell(strategy, candidate, d), found) for d in DISTURBANCES]
            lines.append(f"| {strategy} | {candidate} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _shown(cell: Cell, found: Mapping[str, Outcome]) -> str:
    one = found.get(cell.key)
    if one is None:
        return ""
    mark = "" if kept(cell, one) else "**"
    return f"{mark}{one.outcome}{mark}, {one.seconds:.0f} s, {one.others} + {one.own} of {one.requests}"


def result(found: Mapping[str, Outcome]) -> str:
    """`RESULT name=value ...`, for scripts."""
    known = [(cell, found[cell.key]) for cell in cells() if cell.key in found]
    values = {
        "cells": len(known),
        "of": len(cells()),
        "kept": sum(kept(cell, one) for cell, one in known),
        "requests": sum(one.requests for _, one in known),
        "failed_by_candidates": sum(one.own for _, one in known),
        "failed_otherwise": sum(one.others for _, one in known),
        "worst_load": max((round(one.load) for _, one in known), default=0),
    }
    return "RESULT " + " ".join(f"{name}={value}" for name, value in values.items())
