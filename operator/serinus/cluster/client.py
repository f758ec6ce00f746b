"""A thin client: plain dicts in and out, one field manager, a limit on every call, retries where they are safe."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any, Self

import aiohttp
from kubernetes.aio import client as k8s
from kubernetes.aio import config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from serinus.cluster.kinds import BY_KIND, Kind
from serinus.objects.context import Object
from serinus.objects.names import MANAGER

log = logging.getLogger(__name__)

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
ATTEMPTS = 4
FIRST_PAUSE = 0.2


class ApiError(Exception):
    """The API server refused a call. `status` is the HTTP code, 0 where none came back."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Calls to the API server."""

    def __init__(self, client: k8s.ApiClient, *, call_timeout: float = 10.0) -> None:
        self._client = client
        self._dynamic = DynamicClient(client)
        self._timeout = call_timeout

    @classmethod
    async def connect(cls) -> Self:
        """A client for the cluster the process runs in, else for the current kubeconfig context."""
        try:
            config.load_incluster_config()
        except config.ConfigException:
            await config.load_kube_config()
        return cls(k8s.ApiClient())

    async def close(self) -> None:
        await self._client.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            return await self._call("get", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None, selector: str | None = None) -> list[Object]:
        """All objects of a kind, `kind` and `apiVersion` filled in; [] where the cluster does not know the kind."""
        items: list[Object] = []
        token: str | None = None
        while True:
            try:
                page = await self._call(
                    "get", kind.path(namespace), label_selector=selector, limit=500, _continue=token
                )
            except ApiError as error:
                if error.status == 404:
                    return []
                raise
            for item in page.get("items", []):
                items.append({"kind": kind.kind, "apiVersion": page["apiVersion"], **item})
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items

    async def serves(self, kind: Kind) -> bool:
        """Whether the cluster knows a kind."""
        prefix = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        try:
            found = await self._call("get", prefix)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return any(entry["name"] == kind.plural for entry in found.get("resources", []))

    async def apply(self, obj: Object, subresource: str | None = None) -> Object:
        """Server-side apply as the operator's field manager; what others wrote into our fields is taken back."""
        meta = obj["metadata"]
        return await self._call(
            "patch",
            BY_KIND[obj["kind"]].path(meta["namespace"], meta["name"], subresource),
            body=obj,
            content_type="application/apply-patch+yaml",
            field_manager=MANAGER,
            force_conflicts=True,
        )

    async def scale(self, kind: Kind, namespace: str, name: str, replicas: int) -> None:
        """Sets replicas through the scale subresource, which takes no ownership from the autoscaler."""
        await self._call(
            "patch",
            kind.path(namespace, name, "scale"),
            body={"spec": {"replicas": replicas}},
            content_type="application/merge-patch+json",
            field_manager=f"{MANAGER}-scale",
        )

    async def create(self, kind: Kind, namespace: str | None, obj: Object, *, dry_run: bool = False) -> Object:
        return await self._call("post", kind.path(namespace), body=obj, field_manager=MANAGER, **_dry(dry_run))

    async def replace(self, kind: Kind, obj: Object, *, dry_run: bool = False) -> Object:
        """Writes the whole object; 409 where its resourceVersion is not the stored one."""
        meta = obj["metadata"]
        path = kind.path(meta["namespace"], meta["name"])
        return await self._call("put", path, body=obj, field_manager=MANAGER, **_dry(dry_run))

    async def merge(self, kind: Kind, namespace: str, name: str, change: Object) -> Object:
        """A JSON merge patch, as people's tools send it; null removes."""
        return await self._call(
            "patch",
            kind.path(namespace, name),
            body=change,
            content_type="application/merge-patch+json",
            field_manager=f"{MANAGER}-cli",
        )

    async def delete(self, obj: Object, *, unchanged: bool = False, dry_run: bool = False) -> None:
        """Deletes exactly this object (its uid), children in the background. Gone already is fine.

        With `unchanged`, only as it was read: 409 where somebody has written it since.
        """
        meta = obj["metadata"]
        only = {"uid": meta["uid"], **({"resourceVersion": meta["resourceVersion"]} if unchanged else {})}
        body: Object = {"preconditions": only, "propagationPolicy": "Background"}
        if dry_run:  # with a body, the API server reads options nowhere else
            body["dryRun"] = ["All"]
        try:
            await self._call("delete", BY_KIND[obj["kind"]].path(meta["namespace"], meta["name"]), body=body)
        except ApiError as error:
            if error.status not in (404, 409) or (unchanged and error.status == 409):
                raise

    async def _call(self, method: str, path: str, **params: Any) -> Object:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._once(method, path, params)
            except ApiError as error:
                if error.status not in RETRIED_STATUS or attempt == ATTEMPTS:
                    raise
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == ATTEMPTS:
                    raise ApiError(0, f"{method} {path}: {type(error).__name__}: {error}") from error
            await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError("unreachable")

    async def _once(self, method: str, path: str, params: dict[str, Any]) -> Object:
        try:
            answer = await self._dynamic.request(method, path, serialize=False, **_fresh(params))
            found: Object = await answer.json()
        except (DynamicApiError, ApiException) as error:
            raise ApiError(int(error.status or 0), f"{method} {path}: {_message(error)}") from error
        return found


def _fresh(params: dict[str, Any]) -> dict[str, Any]:
    # The library's request() keeps its list and dict arguments between calls and appends to them.
    return {**params, "path_params": {}, "query_params": [], "header_params": {}}


def _dry(asked: bool) -> dict[str, str]:
    return {"dry_run": "All"} if asked else {}


def _message(error: Any) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    return f"{error.status} {getattr(error, 'reason', '')}: {str(body)[:600]}"
