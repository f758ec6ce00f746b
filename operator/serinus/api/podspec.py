"""What a ModelDeployment says about pods in Kubernetes' own words: resources, devices, tolerations, images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from serinus.api.base import ApiModel
from serinus.api.cel import Cel, quote
from serinus.api.texts import EnvName, LabelKey, LabelValue
from serinus.api.units import Quantity


def _valid(value: str) -> str:
    return f"{value}.matches({quote(Quantity.pattern)})"


_RESOURCE_NAMES = (
    Cel(
        r"self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.contains('/') || k.startsWith('hugepages-'))",
        "resources are cpu, memory, ephemeral-storage, or a device with its domain such as nvidia.com/gpu",
    ),
    Cel(
        "self.all(k, !k.contains('/') || self[k].matches('^[0-9]+$'))",
        'devices are whole: write a number such as "1", in quotes',
    ),
)


class Resources(ApiModel):
    """Compute resources of each model pod. GPUs and other accelerators go under `limits`."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16), *_RESOURCE_NAMES] = {}
    """What the scheduler reserves."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16), *_RESOURCE_NAMES] = {}
    """What a pod may not exceed, and its devices, for example `nvidia.com/gpu: 1`."""
    rules = (
        Cel(
            "!has(self.requests) || self.requests.all(k, !k.contains('/') || (has(self.limits) && k in self.limits))",
            "devices such as nvidia.com/gpu belong in limits; requests may repeat them",
            field_path=".requests",
        ),
        Cel(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits)"
            f" || !{_valid('self.requests[k]')} || !{_valid('self.limits[k]')}"
            " || quantity(self.requests[k]).compareTo(quantity(self.limits[k])) <= 0)",
            "a request may not be above the limit of the same resource: lower the request or raise the limit",
            field_path=".requests",
        ),
    )


class EnvVar(ApiModel):
    """An environment variable. Secrets do not belong here: mount them."""

    name: EnvName
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] = ""
    """Its value."""


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """Lets model pods run on nodes with a matching taint."""

    key: LabelKey | None = None
    """Key of the taint. Only `operator: Exists` may leave it out; then every taint is tolerated."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """Whether the taint's value must be equal, or need only exist."""
    value: LabelValue | None = None
    """Value of the taint, for `Equal`."""
    effect: TaintEffect | None = None
    """Effect of the taint. Left out: every effect."""
    rules = (
        Cel(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value)",
            "operator Exists takes no value: remove the value or use operator Equal",
            field_path=".value",
        ),
        Cel(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "write the taint's key, or operator: Exists to tolerate every taint",
        ),
    )


class PullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"
