"""One file per phase of a release. Each moves a draft on by at most one step per decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serinus.api.status import Phase
from serinus.release.draft import Draft
from serinus.release.phases.experimenting import experimenting
from serinus.release.phases.previewing import previewing
from serinus.release.phases.promoting import promoting
from serinus.release.phases.rolling_back import rolling_back
from serinus.release.phases.shadowing import shadowing
from serinus.release.phases.starting import starting
from serinus.release.phases.testing import testing
from serinus.release.phases.weights import weights

PHASES: Mapping[Phase, Callable[[Draft], None]] = {
    Phase.STARTING: starting,
    Phase.TESTING: testing,
    Phase.SHADOWING: shadowing,
    Phase.CANARY: weights,
    Phase.PREVIEWING: previewing,
    Phase.EXPERIMENTING: experimenting,
    Phase.PROMOTING: promoting,
    Phase.ROLLING_BACK: rolling_back,
}
