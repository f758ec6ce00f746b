"""What follows from the kinds of steps: which phase works on each, and what is still to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serinus.api.status import Phase
from serinus.api.steps import Step, StepKind

PHASE_OF: Mapping[StepKind, Phase] = {
    StepKind.SMOKE_TEST: Phase.TESTING,
    StepKind.SHADOW: Phase.SHADOWING,
    StepKind.PREVIEW: Phase.PREVIEWING,
    StepKind.WEIGHT: Phase.CANARY,
    StepKind.EXPERIMENT: Phase.EXPERIMENTING,
}
"""The phase of a release while a step of this kind is under way."""
STEP_PHASES = frozenset(PHASE_OF.values())
COUNTED_PHASES = frozenset({Phase.PREVIEWING, Phase.CANARY, Phase.EXPERIMENTING})
"""Phases whose requests are counted anew."""


def upcoming_share(steps: Sequence[Step], index: int) -> int:
    """Percent of the users' requests that the candidate needs pods for next, from step `index` on; 100 at the end."""
    return next((step.load for step in steps[index:] if step.load), 100)
