"""A revision: one immutable pair of `spec.model` and `spec.runtime`, named by its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

from serinus.api.runtime import Runtime
from serinus.api.spec import Model, ModelDeploymentSpec
from serinus.api.status import RevisionRef

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' safe alphabet: no vowels, no look-alikes
_LENGTH = 10


@dataclass(frozen=True)
class Revision:
    """What a set of pods serves and how. Two revisions with the same name are the same."""

    name: str
    model: Model
    runtime: Runtime

    @classmethod
    def of(cls, deployment: str, model: Model, runtime: Runtime) -> Self:
        """The revision that a ModelDeployment of this name asks for; names and versions left open are filled in."""
        full = model.model_copy(
            update={
                "name": model.name or deployment,
                "version": model.version or model.digest.removeprefix("sha256:")[:12],
            }
        )
        # Defaults are left out of the hash: a field that a later operator adds, or a default written out by hand,
        # must not restart every model in the cluster.
        content = {
            "model": full.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "runtime": runtime.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()
        name = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:_LENGTH])
        return cls(name, full, runtime)

    @classmethod
    def target(cls, deployment: str, spec: ModelDeploymentSpec) -> Self:
        """The revision that `spec` declares."""
        return cls.of(deployment, spec.model, spec.runtime)

    @property
    def version(self) -> str:
        return self.model.version or ""

    def ref(self, **fields: Any) -> RevisionRef:
        """How status names this revision."""
        return RevisionRef(revision=self.name, version=self.version, digest=self.model.digest, **fields)

    def snapshot(self) -> dict[str, Any]:
        """What a ControllerRevision stores."""
        return {
            "model": self.model.model_dump(mode="json", by_alias=True, exclude_none=True),
            "runtime": self.runtime.model_dump(mode="json", by_alias=True, exclude_none=True),
        }

    @classmethod
    def restore(cls, name: str, data: dict[str, Any]) -> Self:
        """The revision that a ControllerRevision's data describes.

        Raises:
            pydantic.ValidationError: the data is not a revision.
        """
        return cls(name, Model.model_validate(data["model"]), Runtime.model_validate(data["runtime"]))
