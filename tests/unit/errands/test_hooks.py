"""Webhooks against a real HTTP server: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from serinus.errands import ErrandError
from serinus.errands.guard import LINK_LOCAL
from serinus.errands.hooks import HookCaller
from serinus.release.hooks import HookAnswer, HookTask, Said

OWNER = ("team", "fraud")


def call(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    *,
    hosts: tuple[str, ...] = (),
    timeout: float = 30.0,
    path: str = "/hook",
) -> tuple[HookAnswer, list[tuple[dict[str, Any], dict[str, str]]]]:
    """What the caller makes of a server's answer, and the requests that the server got."""
    seen: list[tuple[dict[str, Any], dict[str, str]]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json(), dict(request.headers)))
        return await answer(request)

    async def story() -> HookAnswer:
        app = web.Application()
        app.router.add_post("/{tail:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            task = HookTask(f"http://127.0.0.1:{port}{path}", '{"when":"Before"}', "rev/1/Before/0/board/1", timeout)
            return await HookCaller(hosts).run(OWNER, task)
        finally:
            await runner.cleanup()

    return asyncio.run(story()), seen


def saying(status: int, body: Any = None, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="" if body is None else json.dumps(body), headers=headers)

    return answer


@pytest.mark.parametrize(
    ("status", "body", "headers", "wanted"),
    [
        (200, None, {}, HookAnswer(Said.GO)),
        (204, None, {}, HookAnswer(Said.GO)),
        (200, {"message": "fine"}, {}, HookAnswer(Said.GO, "fine")),
        (200, {"hold": True, "message": "wait for Ann"}, {}, HookAnswer(Said.HOLD, "wait for Ann")),
        (202, None, {"Retry-After": "30"}, HookAnswer(Said.HOLD, "", 30.0)),
        (403, {"message": "not today"}, {}, HookAnswer(Said.NO, "HTTP 403: not today")),
        (404, "text", {}, HookAnswer(Said.NO, "HTTP 404")),
        (429, None, {}, HookAnswer(Said.NOTHING, "HTTP 429")),
        (503, None, {}, HookAnswer(Said.NOTHING, "HTTP 503")),
        (
            302,
            None,
            {"Location": "http://169.254.169.254/"},
            HookAnswer(Said.NO, "HTTP 302: redirects are not followed"),
        ),
    ],
)
def test_answers(status: int, body: Any, headers: dict[str, str], wanted: HookAnswer) -> None:
    found, seen = call(saying(status, body, **headers))
    assert found == wanted
    ((document, sent),) = seen
    assert document == {"when": "Before", "namespace": "team"}
    assert sent["Idempotency-Key"] == "team/fraud/rev/1/Before/0/board/1"
    assert sent["Content-Type"] == "application/json"


def test_an_answer_without_end_is_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    assert call(endless)[0] == HookAnswer(Said.GO)


def test_no_answer() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ErrandError, match=r"no answer in 0\.2 s"):
        call(never, timeout=0.2)
    with pytest.raises(ErrandError, match="Cannot connect"):
        asyncio.run(HookCaller().run(OWNER, HookTask("http://127.0.0.1:1/", "{}", "k", 30.0)))


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"]
)
def test_metadata_services_are_never_called(url: str) -> None:
    found = asyncio.run(HookCaller().run(OWNER, HookTask(url, "{}", "k", 5.0)))
    assert found == HookAnswer(Said.NO, LINK_LOCAL)


def test_only_the_hosts_that_are_allowed() -> None:
    found, seen = call(saying(200), hosts=("*.example.com",))
    assert found.said is Said.NO
    assert "may not call 127.0.0.1" in found.message
    assert seen == []
    assert call(saying(200), hosts=("*.example.com", "127.0.0.*"))[0].said is Said.GO
