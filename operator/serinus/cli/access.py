"""What the command line reads from the cluster, and what it writes: annotations, the freeze switch, a status."""

from __future__ import annotations

import getpass
from typing import Self

import yaml
from kubernetes.aio import client as k8s
from kubernetes.aio import config

from serinus.api import GROUP
from serinus.cli.freezing import config_map
from serinus.cli.picture import CliError, Picture
from serinus.cli.warnings import of_children
from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, MODEL_DEPLOYMENT, WATCHED, WHO_AM_I
from serinus.objects.context import Object
from serinus.objects.names import DEPLOYMENT_LABEL
from serinus.objects.read import Children
from serinus.release import freeze


class Cluster:
    """The cluster of a kubeconfig context."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    @classmethod
    async def connect(cls, context: str | None, namespace: str | None) -> Self:
        """Raises CliError where no cluster can be told from the kubeconfig."""
        try:
            await config.load_kube_config(context=context)
            _, active = config.list_kube_config_contexts()
            found = context_namespace(context) if context else (active or {}).get("context", {}).get("namespace")
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            raise CliError(f"no cluster: {error}; set KUBECONFIG, or use --context") from None
        return cls(Api(k8s.ApiClient()), namespace or found or "default")

    async def close(self) -> None:
        await self._api.close()

    async def names(self) -> list[str]:
        """The ModelDeployments of the namespace."""
        return sorted(item["metadata"]["name"] for item in await self._api.list(MODEL_DEPLOYMENT, self.namespace))

    async def picture(self, name: str, *, events: bool = True) -> Picture:
        """Raises CliError where there is no such ModelDeployment."""
        owner = await self._api.get(MODEL_DEPLOYMENT, self.namespace, name)
        if owner is None:
            known = ", ".join(await self.names()) or "none"
            raise CliError(f"no ModelDeployment {name!r} in namespace {self.namespace!r}; there are: {known}")
        children: list[Object] = []
        for kind in WATCHED:
            try:
                children += await self._api.list(kind, self.namespace, f"{DEPLOYMENT_LABEL}={name}")
            except ApiError as error:
                if error.status != 403:
                    raise
        told: list[Object] = []
        warnings: tuple[Object, ...] = ()
        if events:
            uid = owner["metadata"]["uid"]
            every = await self._api.list(EVENT, self.namespace)
            told = [event for event in every if (event.get("regarding") or {}).get("uid") == uid]
            told.sort(key=lambda event: event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
            warnings = of_children(every, children)
        return Picture(owner, Children(children), tuple(told), warnings=warnings)

    async def user(self) -> str:
        """Who the API server says we are; the local user where it will not say (before Kubernetes 1.28)."""
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
        try:
            answer = await self._api.create(WHO_AM_I, None, asked)
            return str(answer["status"]["userInfo"]["username"])
        except (ApiError, KeyError, TypeError):
            return getpass.getuser()

    async def write(self, obj: Object) -> None:
        """Applies an object as the operator would; one with a status, that status alone."""
        await self._api.apply(obj, subresource="status" if "status" in obj else None)

    async def runs_operator(self, namespace: str) -> bool:
        """Whether Deployments of the chart are in `namespace`. True where nobody may say."""
        try:
            return bool(await self._api.list(DEPLOYMENT, namespace, "app.kubernetes.io/component=operator"))
        except ApiError as error:
            if error.status != 403:
                raise
            return True

    async def switch(self, namespace: str) -> Object | None:
        """The ConfigMap that freezes releases, in the operator's namespace."""
        return await self._api.get(CONFIG_MAP, namespace, freeze.CONFIG_MAP)

    async def turn(self, namespace: str, stored: Object | None, data: dict[str, str] | None, *, dry_run: bool) -> None:
        """Writes the switch, if it still is as `stored`; `data` None removes it. ApiError 409: somebody was faster."""
        if data is None:
            if stored is not None:
                await self._api.delete({"kind": "ConfigMap", **stored}, unchanged=True, dry_run=dry_run)
        elif stored is None:
            await self._api.create(CONFIG_MAP, namespace, config_map(namespace, data), dry_run=dry_run)
        else:
            await self._api.replace(CONFIG_MAP, {**stored, "data": data}, dry_run=dry_run)

    async def annotate(self, name: str, verb: str, value: str | None) -> None:
        """Sets the annotation `verb` of a ModelDeployment; None removes it."""
        await self.picture(name, events=False)
        await self._api.merge(
            MODEL_DEPLOYMENT, self.namespace, name, {"metadata": {"annotations": {f"{GROUP}/{verb}": value}}}
        )


def context_namespace(context: str) -> str | None:
    """The namespace that a kubeconfig context names."""
    contexts, _ = config.list_kube_config_contexts()
    found = next((each for each in contexts if each["name"] == context), None)
    namespace: str | None = (found or {}).get("context", {}).get("namespace")
    return namespace
