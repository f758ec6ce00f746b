"""Two ModelDeployments that claim one address at one Gateway: gateways serve the older route and say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serinus.api.spec import Route

Key = tuple[str, str]
"""Namespace and name of a ModelDeployment."""
Place = tuple[str, str, str, str]
"""Gateway's namespace and name, host name (empty for every one of the listener's), path."""


@dataclass(frozen=True)
class _Claim:
    born: str
    places: tuple[tuple[Place, str], ...]
    """With the listener, empty for all."""


class Routes:
    """Who claims what. One look costs as much as there are claims of the same address."""

    def __init__(self) -> None:
        self._claims: dict[Key, _Claim] = {}
        self._by_place: dict[Place, set[Key]] = {}

    def put(self, key: Key, meta: Mapping[str, Any], route: Route | None) -> None:
        """Notes what a ModelDeployment claims now."""
        places = tuple(_places(key[0], route)) if route is not None else ()
        claim = _Claim(str(meta.get("creationTimestamp", "")), places)
        if self._claims.get(key) == claim:
            return
        self.forget(key)
        self._claims[key] = claim
        for place, _ in places:
            self._by_place.setdefault(place, set()).add(key)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        claim = self._claims.pop(key, None)
        for place, _ in claim.places if claim else ():
            keys = self._by_place.get(place, set())
            keys.discard(key)
            if not keys:
                self._by_place.pop(place, None)

    def conflict(self, key: Key) -> str | None:
        """The older ModelDeployment that has the same address, as a sentence; None where there is none."""
        mine = self._claims.get(key)
        for place, section in mine.places if mine else ():
            for other in sorted(self._by_place.get(place, ())):
                claim = self._claims[other]
                older = (claim.born, other) < (mine.born if mine else "", key)
                if other != key and older and _listens(claim, place, section):
                    host = place[2] or "every host name"
                    return (
                        f"ModelDeployment {other[0]}/{other[1]} is older and has {host} with path {place[3]} "
                        f"at Gateway {place[0]}/{place[1]} too: requests go there"
                    )
        return None


def _listens(claim: _Claim, place: Place, section: str) -> bool:
    return any(there == place and (not section or not name or name == section) for there, name in claim.places)


def _places(namespace: str, route: Route) -> Iterator[tuple[Place, str]]:
    for parent in route.parent_refs:
        for host in route.hostnames or [""]:
            place = (parent.namespace or namespace, parent.name, host, route.path)
            yield place, parent.section_name or ""
