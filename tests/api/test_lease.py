"""Leader election against a real API server: one leads, a successor is quick, a leader that lost knows."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

import pytest
from kubernetes.aio import client as k8s
from kubernetes.aio import config

from cluster import ClusterInfo
from serinus.cluster.client import Api
from serinus.cluster.kinds import LEASE
from serinus.cluster.lease import Lease, LeaseLost

pytestmark = pytest.mark.needs("apiserver")
NAMESPACE = "default"


def run(apiserver: ClusterInfo, scenario: Callable[[Api, Api, str], Awaitable[None]]) -> None:
    """Runs a scenario with two clients and a fresh lease name."""

    async def main() -> None:
        apis = []
        for _ in range(2):
            configuration = k8s.Configuration()
            await config.load_kube_config(str(apiserver.kubeconfig), client_configuration=configuration)
            apis.append(Api(k8s.ApiClient(configuration)))
        try:
            async with asyncio.timeout(60):
                await scenario(apis[0], apis[1], f"lease-{secrets.token_hex(4)}")
        finally:
            for api in apis:
                await api.close()

    asyncio.run(main())


def test_the_second_waits_and_takes_over_at_once_when_the_first_lets_go(apiserver: ClusterInfo) -> None:
    async def scenario(one: Api, two: Api, name: str) -> None:
        first = Lease(one, NAMESPACE, name, "first", duration=600)
        second = Lease(two, NAMESPACE, name, "second", duration=600)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        done, _ = await asyncio.wait([waiting], timeout=3)
        assert not done, "two replicas lead"
        await first.release()
        await waiting  # a lease of ten minutes that had to be waited out would end the scenario
        stored = await one.get(LEASE, NAMESPACE, name)
        assert stored is not None
        assert stored["spec"]["holderIdentity"] == "second"
        assert stored["spec"]["leaseTransitions"] >= 2

    run(apiserver, scenario)


def test_a_silent_leader_is_replaced_and_notices(apiserver: ClusterInfo) -> None:
    async def scenario(one: Api, two: Api, name: str) -> None:
        frozen = Lease(one, NAMESPACE, name, "frozen", duration=6)
        second = Lease(two, NAMESPACE, name, "second", duration=6)
        await frozen.acquire()
        started = time.monotonic()
        await second.acquire()
        assert time.monotonic() - started >= 6, "a lease was taken before it ran out"
        with pytest.raises(LeaseLost, match="another replica leads"):
            await frozen.keep()

    run(apiserver, scenario)


def test_a_leader_keeps_its_lease(apiserver: ClusterInfo) -> None:
    async def scenario(one: Api, two: Api, name: str) -> None:
        first = Lease(one, NAMESPACE, name, "first", duration=5)
        second = Lease(two, NAMESPACE, name, "second", duration=5)
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        waiting = asyncio.create_task(second.acquire())
        done, pending = await asyncio.wait([keeping, waiting], timeout=12)
        assert not done
        for task in pending:
            task.cancel()

    run(apiserver, scenario)
