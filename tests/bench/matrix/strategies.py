"""The strategies of the matrix, with holds as short as a sound verdict allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
WINDOW = 40.0
"""Seconds of `rollbackWindow`: a version that turns out bad after its promotion is found out in them, or never."""
USERS = 200
"""Known users of a release that is sticky."""
_WEIGHTS = [{"weight": weight, "hold": "4s", "minRequests": 30} for weight in (20, 50)]
_SHADOW = {"percent": 50, "duration": "5s", "minPairs": 60, "maxDisagreement": "5%"}
_OWNER = "model_namespace, model_deployment, revision"
_SOLD = {"good": 0.9, "disagreeing": 0.2}
"""Share of a candidate's requests that the experiment counts as successes; of all others, and of the live version's,
one half. So what is slow, fails or crashes sells as well as ever, and only the SLO speaks against it."""


@dataclass(frozen=True)
class Strategy:
    """`spec.release`, and what belongs to it."""

    release: Mapping[str, Any]
    compares: bool = False
    """Whether it looks at what a candidate answers, and not only at how well it does."""
    experiment: bool = False
    """Whether a business metric decides in the end."""
    testers: bool = False
    """Whether somebody uses the preview."""
    users: int = 0
    """Users who say who they are; 0: nobody does."""


STRATEGIES: Mapping[str, Strategy] = {
    "Canary": Strategy({"steps": _WEIGHTS}),
    "Canary, sticky": Strategy({"steps": _WEIGHTS, "sticky": {"header": {"name": "X-User-Id"}}}, users=USERS),
    "smoke, then Canary": Strategy({"smokeTest": {"requests": 20}, "steps": _WEIGHTS}),
    "shadow, then Canary": Strategy({"steps": [{"shadow": _SHADOW}, *_WEIGHTS]}, compares=True),
    "BlueGreen": Strategy({"strategy": "BlueGreen"}),
    "BlueGreen, preview": Strategy({"strategy": "BlueGreen"}, testers=True),
    "AB": Strategy({"strategy": "AB"}, compares=True, experiment=True),
    "Rolling": Strategy({"strategy": "Rolling"}),
}


def preview_host(host: str) -> str:
    """The address of the preview of a model that is served at `host`."""
    return f"preview.{host}"


def plan(strategy: str, candidate: str, version: str, host: str) -> Object:
    """`spec.release` of a candidate of some kind that is called `version`, for a model that is served at `host`."""
    chosen = STRATEGIES[strategy]
    release: Object = {**chosen.release, "rollbackWindow": f"{WINDOW:.0f}s"}
    if chosen.testers:
        release["steps"] = [{"preview": {"hostnames": [preview_host(host)]}, "hold": "4s", "minRequests": 100}]
    if chosen.experiment:
        release["steps"] = [_WEIGHTS[0], {"experiment": _experiment(_SOLD.get(candidate, 0.5), version)}]
    return release


def _experiment(sold: float, version: str) -> Object:
    def successes(share: float, sign: str) -> str:
        return f'floor({share} * sum by ({_OWNER}) (serinus_requests_total{{model_version{sign}"{version}"}}))'

    metric = {
        "successes": f"{successes(sold, '=')} or {successes(0.5, '!=')}",
        "trials": f"sum by ({_OWNER}) (serinus_requests_total)",
        "interval": "2s",
    }
    goal = {"baseline": "50%", "minimumEffect": "20%", "maxDuration": "1m", "onSuccess": "Promote"}
    return {"metric": metric, **goal}
