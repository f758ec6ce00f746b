"""Who does which errand: the edge's parts put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from serinus.cluster.client import Api, ApiError
from serinus.cluster.kinds import CONFIG_MAP
from serinus.cluster.store import Store
from serinus.errands.edge import ErrandError, Runner
from serinus.errands.hooks import HookCaller
from serinus.errands.keys import from_file
from serinus.errands.smoke import SmokeTester
from serinus.objects.addresses import pod_urls
from serinus.release.hooks import HookTask
from serinus.release.smoke import SmokeTask


def runners(api: Api, store: Store, key_file: Path | None, hook_hosts: Sequence[str] = ()) -> Mapping[type, Runner]:
    """Every kind of task and who does it."""

    async def read(namespace: str, name: str, key: str) -> str | None:
        try:
            found = await api.get(CONFIG_MAP, namespace, name)
        except ApiError as error:
            if error.status == 403:
                raise ErrandError(
                    f"the operator may not read ConfigMap {name}: install the chart with rbac.readConfigMaps=true"
                ) from error
            raise ErrandError(f"ConfigMap {name} cannot be read: {error}"[:300]) from error
        text = ((found or {}).get("data") or {}).get(key)
        return text if isinstance(text, str) else None

    smoke = SmokeTester(lambda owner, revision: pod_urls(store.children(owner), revision), read, from_file(key_file))
    return {SmokeTask: smoke.run, HookTask: HookCaller(hook_hosts).run}
