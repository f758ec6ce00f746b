"""The rules of a route in the places that they keep: what a gateway makes of them depends on where they stand.

A rule that nobody is served by at the moment is parked: it keeps its place and its backends, and takes only requests
with a header that nobody sends. Whoever does send it is served by the live revision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from serinus.api.spec import ModelDeploymentSpec
from serinus.objects.context import Object
from serinus.objects.matches import header_matches
from serinus.objects.sticky import Sign, both, drawn, recognised
from serinus.objects.workload import GRPC_PORT, SERVICE_PORT
from serinus.release.form import Form, form_of
from serinus.release.observed import Pin, Plan
from serinus.release.sticky import ByCookie
from serinus.runtimes import TEMPLATES

GRPC_PATH = "/inference.GRPCInferenceService"
"""Path prefix of the Open Inference Protocol's gRPC service."""
PARKED: Object = {"type": "Exact", "name": "X-Serinus-Parked", "value": "true"}
_GIVES_NOTHING: Object = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": [PARKED["name"]]}}
"""A filter that does nothing: a backend with a filter is another thing to a gateway than one without."""


@dataclass(frozen=True)
class To:
    """One backend of a rule."""

    revision: str
    weight: int = 100
    filters: tuple[Object, ...] = ()


@dataclass(frozen=True)
class Place:
    """A rule, whatever its path."""

    users: Sequence[list[Object]]
    """By the headers that tell them, any of these; none for everybody."""
    to: tuple[To, ...]
    mirrored: bool = True
    """A shadow is about these users."""
    weighted: bool = False
    """How many backends it has depends on the weights of the moment."""

    @property
    def shape(self) -> tuple[int, bool]:
        """How many backends it has, and whether any of them has filters: what a gateway makes of it."""
        return len(self.to), any(to.filters for to in self.to)


def places(plan: Plan, cookie_path: str) -> Iterator[Place]:
    """The rules that a plan asks for, and those of its form that it has no use for now."""
    form = plan.form or Form(tuple(pin.flag for pin in plan.pins))
    some, split = plan.users, plan.sticky
    weighted = tuple(To(revision, weight) for revision, weight in plan.weights.items())
    stable, weights = plan.stable, plan.weights
    live = stable if stable is not None and stable in weights else max(weights, key=lambda name: weights[name])
    parked = Place([[PARKED]], (To(live),), mirrored=False)
    if isinstance(split, ByCookie):
        draws = tuple(To(revision, share, (gives,)) for revision, share, gives in drawn(split, cookie_path))
    else:
        draws = ()

    if some:
        yield Place([], (To(live),), _shadows(plan, plan.stable), weighted=True)
    elif draws:
        yield Place([[PARKED]], weighted, mirrored=False, weighted=True)
    else:
        yield Place([], weighted, weighted=True)
    pins = {pin.flag: pin for pin in plan.pins}
    for pin in [pins.get(flag) for flag in form.flags] if plan.form else plan.pins:
        yield _pinned(plan, pin) if pin else parked
    signs = list(_signs(plan))
    yield from signs
    yield from [parked] * (2 * form.signs - len(signs))
    if draws or some:
        yield Place([header_matches(some)] if some else [], draws or weighted, weighted=not draws)
    elif form.groups:
        kept = tuple(To(live, share, (_GIVES_NOTHING,)) for share in form.groups)
        yield Place([[PARKED]], kept, mirrored=False)
    elif form.users:
        yield replace(parked, weighted=True)


def _pinned(plan: Plan, pin: Pin) -> Place:
    users, some = [header_matches(match) for match in pin.match], plan.users
    # A pin must not lose to the experiment's rules, which name more headers than it does.
    also = [both(match, some, plan.sticky) for match in pin.match] if some else []
    return Place(users + [headers for headers in also if headers is not None], (To(pin.revision),), mirrored=False)


def _signs(plan: Plan) -> Iterator[Place]:
    for revision, sign, is_cookie in recognised(plan.sticky) if plan.sticky else ():
        signs: dict[str, list[Sign]] = {"cookies": [sign]} if is_cookie else {"headers": [sign]}
        yield Place([header_matches(plan.users, **signs)], (To(revision),), _shadows(plan, revision))


def _shadows(plan: Plan, revision: str | None) -> bool:
    """Whether a shadow is about users who are served by one revision."""
    pinned = any(pin.revision == revision for pin in plan.pins)
    return plan.mirror is not None and revision == plan.mirror.live and not pinned


def ways(spec: ModelDeploymentSpec) -> list[tuple[str, int]]:
    """The paths that each rule is for, and the ports behind them."""
    path = spec.route.path if spec.route else "/"
    return [(path, SERVICE_PORT), *([(_grpc_path(spec), GRPC_PORT)] if path == "/" else [])]


def _grpc_path(spec: ModelDeploymentSpec) -> str:
    runtime = spec.runtime
    beside = TEMPLATES[runtime.name].beside
    if beside is None or runtime.engine is None or runtime.engine.grpc_port is None:
        return GRPC_PATH
    return beside.grpc_path or GRPC_PATH


def formed(spec: ModelDeploymentSpec, rules: Sequence[Object]) -> bool:
    """Whether a stored route has the rules of its spec's form in their places, in use or parked."""
    form = form_of(spec)
    if form is None or spec.route is None:
        return True
    resting = Plan(weights={"live": 100}, stable="live", form=form)
    expected = [place for place in places(resting, spec.route.path) for _ in ways(spec)]
    fits = (place.weighted or place.shape == _shape(rule) for place, rule in zip(expected, rules, strict=False))
    return len(rules) >= len(expected) and all(fits)


def is_parked(rule: Mapping[str, list[Object]]) -> bool:
    """Whether nobody is served by a rule of a stored route."""
    matches = rule.get("matches", [])
    return bool(matches) and all(PARKED in match.get("headers", []) for match in matches)


def _shape(rule: Object) -> tuple[int, bool]:
    backends = rule.get("backendRefs", [])
    return len(backends), any(backend.get("filters") for backend in backends)
