"""Where the operator may be made to call by what people write: one guard for webhooks and for notifications.

Whoever may write a ModelDeployment chooses addresses, and the operator's pod reaches more than he does. Looked at is
the address that is connected to, after the name was resolved, so that no name and no spelling of a number leads past.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

LINK_LOCAL = "link-local addresses and the metadata services of clouds are not called"
_METADATA = frozenset(
    ipaddress.ip_address(each)
    # Alibaba Cloud, Oracle Cloud (classic), AWS over IPv6, Google Cloud over IPv6.
    for each in ("100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Guard:
    """What may be called.

    Args:
        hosts: patterns such as *.example.com of the hosts that may be called; empty: any.
    """

    def __init__(self, hosts: Sequence[str] = ()) -> None:
        self._hosts = tuple(host.lower() for host in hosts)

    def refusal(self, url: str, called: str | None = None) -> str | None:
        """Why `url` may not be called, as far as it can be told without resolving its name; None where it may.

        Args:
            called: what the host is called in the answer, where nobody is to read its name.
        """
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return "the address is no http:// or https:// address"
        if self._hosts and not any(fnmatchcase(host, pattern) for pattern in self._hosts):
            return f"the operator may not call {called or host}: its webhooks.hosts are {', '.join(self._hosts)}"
        return LINK_LOCAL if forbidden(host) else None

    @staticmethod
    def connector() -> aiohttp.TCPConnector:
        """A connector for one call that resolves no name to what may not be called."""
        return aiohttp.TCPConnector(resolver=_Guarded(), force_close=True)


def forbidden(host: str) -> bool:
    """Whether `host` is an address at which clouds keep their machines' credentials. A name is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_link_local or inner in _METADATA
    return address.is_link_local or address in _METADATA


class _Guarded(AbstractResolver):
    def __init__(self) -> None:
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        kept = [each for each in found if not forbidden(each["host"])]
        if not kept:
            raise OSError(f"{host}: {LINK_LOCAL}")
        return kept

    async def close(self) -> None:
        await self._inner.close()
