"""Which rules a route holds for as long as its spec stands, whether anybody is served by them or not.

Gateways name what they build by a rule's place in the route: Envoy Gateway (1.9) makes a cluster `rule/2` of the third
rule, and `rule/2/backend/0` and so on where its backends have filters of their own. Envoy answers 503 for requests
that a new rule sends to a cluster it does not know yet, and for those that an old rule sends to one that is gone. So
every rule that a release may need is there before anybody needs it, and stays where it is afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from serinus.api.spec import ModelDeploymentSpec
from serinus.release.sticky import shares


@dataclass(frozen=True)
class Form:
    """Rules behind the one for everybody, in their order."""

    flags: tuple[str, ...] = ()
    """One for each flag."""
    signs: bool = False
    """Two for sticky users who carry a sign: one to the candidate, one to the live revision."""
    groups: tuple[int, ...] = ()
    """One that draws users without a cookie: percent of the users by backend, each of which gives its own cookie."""
    users: bool = False
    """One for those who take part in an experiment; the same as the one that draws, where there is that."""

    @property
    def divides(self) -> bool:
        """Whether weights move by other rules than the one for everybody."""
        return self.signs or self.users


def form_of(spec: ModelDeploymentSpec) -> Form | None:
    """The form of a spec's route; None where there is nothing but the rule for everybody."""
    if spec.route is None:
        return None
    sticky, steps = spec.release.sticky, spec.release.plan_steps()
    form = Form(
        tuple(flag.name for flag in spec.route.flags),
        sticky is not None,
        shares(steps) if sticky is not None and sticky.cookie is not None else (),
        any(step.experiment is not None and step.experiment.users is not None for step in steps),
    )
    return form if form != Form() else None
