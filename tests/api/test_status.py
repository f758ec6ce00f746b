"""A status that the operator writes is one that the API server stores, whatever it held before."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from kubernetes.aio import client as k8s
from kubernetes.aio import config

from api.tables import Kubectl, load, model_deployment
from serinus.api import API_VERSION, KIND
from serinus.api.shown import Capital
from serinus.api.status import ModelDeploymentStatus, Phase, ReleaseStatus
from serinus.cluster.client import Api

pytestmark = pytest.mark.needs("apiserver")
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def status(tests: dict[str, Capital], acted: dict[str, str]) -> ModelDeploymentStatus:
    release = ReleaseStatus(revision="r", phase=Phase.CANARY, started_at=NOW, phase_since=NOW, tests=tests)
    return ModelDeploymentStatus(release=release, acted=acted)


def test_maps_are_filled_emptied_and_filled_again(kubectl: Kubectl) -> None:
    assert kubectl.apply(model_deployment("maps", load("base.yaml"))).returncode == 0
    full = status({"errors": Capital(), "slow": Capital()}, {"abort": "1"})
    empty = status({}, {})

    async def main() -> list[ModelDeploymentStatus]:
        configuration = k8s.Configuration()
        await config.load_kube_config(str(kubectl.kubeconfig), client_configuration=configuration)
        api = Api(k8s.ApiClient(configuration))
        stored = []
        try:
            for wanted in (empty, full, empty, full, status({"slow": Capital()}, {"abort": "1", "retry": "2"})):
                body = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
                meta = {"name": "maps", "namespace": "default"}
                answer = await api.apply(
                    {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "status": body}, subresource="status"
                )
                stored.append(ModelDeploymentStatus.model_validate(answer["status"]))
                assert stored[-1] == wanted
        finally:
            await api.close()
        return stored

    assert len(asyncio.run(main())) == 5
