"""What the operator may be made to call."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.errands.guard import LINK_LOCAL, Guard, forbidden


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "::ffff:100.100.100.200", "192.0.0.192",
    ],
)  # fmt: skip
def test_metadata_services(host: str) -> None:
    assert forbidden(host)
    url = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    assert Guard().refusal(url) == LINK_LOCAL
    assert Guard(("*",)).refusal(url) == LINK_LOCAL, "no pattern allows them"


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "hooks.example.com", "2001:db8::1", "64:ff9b::808:808"])
def test_all_others_may_be_called(host: str) -> None:
    assert not forbidden(host)


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_every_link_local_address_in_every_form(address: object) -> None:
    for form in (str(address), f"::ffff:{address}", f"64:ff9b::{address}"):
        assert forbidden(form)


@given(st.ip_addresses(v=4).filter(lambda each: not each.is_link_local and not forbidden(str(each))))
def test_forms_agree(address: object) -> None:
    assert not forbidden(f"::ffff:{address}")


def test_hosts_are_patterns_and_may_have_another_name_in_the_answer() -> None:
    guard = Guard(("*.Example.com", "hooks.internal"))
    assert guard.refusal("https://HOOKS.example.com/x") is None
    assert guard.refusal("https://hooks.internal:8443/x") is None
    assert "may not call example.org" in (guard.refusal("https://example.org/") or "")
    told = guard.refusal("https://secret-token.example.org/", "receiver team")
    assert told == "the operator may not call receiver team: its webhooks.hosts are *.example.com, hooks.internal"
    assert "no http:// or https://" in (guard.refusal("http://[::1/") or "")


def test_a_name_that_resolves_to_one_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver of the system says so, whatever stands in the address."""

    def resolved(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)

    async def story() -> None:
        connector = Guard.connector()
        try:
            await connector._resolver.resolve("innocent.example.com", 80)
        finally:
            await connector.close()

    with pytest.raises(OSError, match=r"innocent\.example\.com: link-local"):
        asyncio.run(story())
