"""An engine's own container beside the runtime, and what both containers have in common."""

from __future__ import annotations

from serinus.api.podspec import Resources
from serinus.api.runtime import EngineContainer
from serinus.objects.context import Context, Object
from serinus.release.revisions import Revision
from serinus.runtimes import TEMPLATES
from serinus.runtimes.base import Beside

UNPRIVILEGED: Object = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
SHARED_MEMORY: Object = {"name": "shm", "emptyDir": {"medium": "Memory"}}
"""Engines with several processes pass tensors through it; the runtime's default of 64 MiB is too little."""
DEFAULT_REQUESTS = {"cpu": "250m", "memory": "256Mi"}


def engine_container(context: Context, revision: Revision, engine: EngineContainer, beside: Beside) -> Object:
    """The engine's container, started before the runtime's and ended after it has drained: a native sidecar."""
    values = {
        "SERINUS_MODEL_NAME": revision.model.name or context.name,
        "SERINUS_MODEL_DIR": TEMPLATES[revision.runtime.name].model_dir,
        "SERINUS_ENGINE_PORT": str(engine.port),
        **({"SERINUS_ENGINE_GRPC_PORT": str(engine.grpc_port)} if engine.grpc_port is not None else {}),
        "HOME": "/tmp",  # noqa: S108 - in the pod
        **beside.env,
        **{variable.name: variable.value for variable in engine.env},
    }
    container: Object = {
        "name": "engine",
        "image": engine.image,
        "imagePullPolicy": engine.image_pull_policy.value,
        "restartPolicy": "Always",
        "args": [*beside.arguments(engine.grpc_port is not None), *engine.args],
        "env": [{"name": key, "value": value} for key, value in values.items()],
        # Engines write caches all over their image.
        "securityContext": {**UNPRIVILEGED, "readOnlyRootFilesystem": False},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": "/models", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": SHARED_MEMORY["name"], "mountPath": "/dev/shm"},  # noqa: S108
        ],
        "resources": resources_of(engine.resources),
    }
    if command := engine.command or list(beside.command):
        container["command"] = list(command)
    return container


def resources_of(declared: Resources) -> Object:
    """Requests and limits as a container has them; what is not declared has a modest default."""
    limits = {key: str(value) for key, value in declared.limits.items()}
    requests = {key: str(value) for key, value in declared.requests.items()}
    for key, value in DEFAULT_REQUESTS.items():
        if key not in limits:
            requests.setdefault(key, value)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}
