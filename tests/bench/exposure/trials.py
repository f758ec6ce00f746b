"""What is tried: contenders, versions, and how many of each."""

from __future__ import annotations

from dataclasses import dataclass

ERRORS = "0.1%"
LATENCY = "300ms"
"""The limits that both sides are given: an error rate and a p99."""
LIVE = "v1"
GOOD = "good"
BAD = ("errors-100", "errors-5", "errors-1", "slow", "crashing")

SHORT_STEPS = {
    "steps": [{"weight": weight, "hold": "10s", "minRequests": 20} for weight in (10, 20, 30, 40, 50)],
    "rollbackWindow": "1m",
}
"""The steps that Flagger's fastest setting makes, for good versions: ten minutes would say nothing more."""


@dataclass(frozen=True)
class Contender:
    """One controller at one setting."""

    name: str
    interval: int = 0
    """Flagger: seconds between two looks; 0 is Serinus."""
    threshold: int = 0
    """Flagger: failed looks until it rolls back."""

    @property
    def flagger(self) -> bool:
        return self.interval > 0


SERINUS = Contender("Serinus")
EXAMPLE = Contender("Flagger, its example", 60, 5)
FASTEST = Contender("Flagger, fastest", 10, 1)
CONTENDERS = (SERINUS, EXAMPLE, FASTEST)


@dataclass(frozen=True)
class Trial:
    """One release."""

    contender: Contender
    version: str
    number: int = 0

    @property
    def key(self) -> str:
        return f"{self.contender.name}/{self.version}/{self.number}"

    @property
    def bad(self) -> bool:
        return self.version != GOOD

    @property
    def seconds(self) -> float:
        """When to give up waiting for the end."""
        return 900.0 if self.contender is EXAMPLE or self.version == "errors-1" else 420.0


def trials(good: int, bad: int, *, quick: bool = False) -> list[Trial]:
    """All trials: each bad version once, the good ones, the other bad ones: an interrupted run has some of each."""
    versions = ("errors-5",) if quick else BAD
    contenders = (SERINUS, FASTEST) if quick else CONTENDERS
    rounds = [[Trial(who, version, number) for version in versions for who in contenders] for number in range(bad)]
    rounds.insert(1, [Trial(who, GOOD, number) for number in range(good) for who in contenders])
    return [trial for each in rounds for trial in each]
