"""Who may read a tap: only those whose addresses the names in a list have.

The operator gives a joiner the Service `NAME-shadow-hub` in the namespace of the model for as long as a shadow lasts.
A pod knows its own namespace and deployment, so it can look that name up and compare, without a secret and without a
restart: whoever may read the predictions is whoever may make that Service there. It needs a network in which pods see
each other's addresses, as Kubernetes demands of every network.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

FRESH_SECONDS = 5.0
HUB = "-shadow-hub"
"""What the joiner's Service is called behind the ModelDeployment's name."""
Lookup = Callable[[str], Awaitable[Sequence[str]]]


def default_readers(namespace: str, deployment: str) -> tuple[str, ...]:
    """The joiner of this deployment; outside Kubernetes, this machine."""
    return (f"{deployment}{HUB}.{namespace}.svc",) if namespace and deployment else ("127.0.0.1", "::1")


async def resolve(name: str) -> Sequence[str]:
    """The addresses of a name; none when it is not known."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return [str(entry[4][0]) for entry in found]


class Admission:
    """Lets in the addresses of `names`, which are looked up again every five seconds while somebody asks."""

    def __init__(
        self, names: Sequence[str], lookup: Lookup = resolve, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.names = tuple(names)
        self._lookup = lookup
        self._now = now
        self._known: frozenset[str] = frozenset()
        self._at = -1e9

    def known(self, address: str) -> bool:
        """Whether it was let in just now, so that nothing has to be looked up."""
        return self._now() - self._at < FRESH_SECONDS and plain(address) in self._known

    async def admits(self, address: str) -> bool:
        """Whether whoever has this address may read."""
        if not self.known(address):
            found = await asyncio.gather(*(self._lookup(name) for name in self.names))
            self._known = frozenset(plain(each) for addresses in found for each in addresses)
            self._at = self._now()
        return plain(address) in self._known


def plain(address: str) -> str:
    """An address in one spelling: IPv4 that came by IPv6 is IPv4."""
    try:
        told = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(told, "ipv4_mapped", None)
    return str(mapped or told)
