"""/healthz tells a stuck loop from an idle one."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest

from serinus import web
from serinus.settings import OperatorSettings, SettingsError
from serinus.workqueue import Key, WorkQueue


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_follows_the_problem_and_metrics_are_served() -> None:
    async def scenario() -> None:
        problem: list[str | None] = [None]
        runner = await web.serve(0, lambda: problem[0])
        port = runner.addresses[0][1]
        loop = asyncio.get_running_loop()
        try:
            assert await loop.run_in_executor(None, ask, port, "/healthz") == (200, "ok")
            problem[0] = "a reconcile has taken 61 s"
            assert await loop.run_in_executor(None, ask, port, "/healthz") == (503, "a reconcile has taken 61 s")
            assert await loop.run_in_executor(None, ask, port, "/readyz") == (200, "ok")
            code, text = await loop.run_in_executor(None, ask, port, "/metrics")
            assert code == 200
            assert "serinus_operator_reconcile_duration_seconds" in text
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


def test_a_hanging_reconcile_shows() -> None:
    async def scenario() -> None:
        started, release = asyncio.Event(), asyncio.Event()

        async def work(key: Key) -> None:
            started.set()
            await release.wait()

        queue = WorkQueue(work)
        assert queue.longest_run == 0
        queue.add(("ns", "a"))
        task = asyncio.create_task(queue.run())
        await started.wait()
        assert queue.longest_run > 0
        release.set()
        task.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SERINUS_PROMETHEUS_URL", "prometheus:9090", "must be the address of Prometheus"),
        ("SERINUS_TICK", "2", "must be a duration such as 2s"),
        ("SERINUS_TICK", "0", "must be more than 0"),
        ("SERINUS_HTTP_PORT", "http", "must be a port number"),
        ("SERINUS_LOG_FORMAT", "xml", "must be json or text"),
    ],
)
def test_wrong_settings_say_what_to_write(variable: str, value: str, says: str) -> None:
    env = {"SERINUS_PROMETHEUS_URL": "http://prometheus:9090", variable: value}
    with pytest.raises(SettingsError, match=says):
        OperatorSettings.from_env(env)
