"""The demo from the first apply to the last promise, with a kubectl and a gateway that only pretend."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cluster import ClusterInfo
from fraud import demo, kube, live, prepare
from fraud.records import Record
from fraud.story import Snapshot
from fraud.train import VERSIONS, Built
from fraud.watching import DemoError

KUBECTL = """#!/bin/sh
case "$*" in
  apply*-f\\ *) while [ "$1" != "-f" ]; do shift; done; cp "$2" "$FOLDER/applied/" ;;
  get\\ modeldeployments*--watch*) exec tail -n +1 -f "$FOLDER/modeldeployment.jsonl" ;;
  get\\ events*--watch*) exec tail -n +1 -f "$FOLDER/events.jsonl" ;;
  *) echo "no such command: $*" >&2; exit 1 ;;
esac
"""


class Pretender:
    """Plays operator and gateway: what was applied becomes status changes, requests go where the weight says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "applied").mkdir()
        for name in ("modeldeployment", "events"):
            (folder / f"{name}.jsonl").touch()
        self.live, self.candidate, self.weight = "", "", 0
        self.last: dict[str, str] = {}
        self.port = 0
        self.started = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._main, daemon=True)

    def _main(self) -> None:
        try:
            self.loop.run_until_complete(self._play())
        except asyncio.CancelledError:
            pass
        finally:
            self.loop.close()

    async def _play(self) -> None:
        self.task = asyncio.current_task()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self.started.set()
            for version in VERSIONS:
                while not (self.folder / "applied" / f"modeldeployment-{version}.yaml").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await getattr(self, f"_{version}")()
            await asyncio.sleep(60)

    async def _v1(self) -> None:
        await self._say("Starting", candidate="v1")
        await self._end("v1", "Promoted", "Promoted", live="v1")

    async def _v2(self) -> None:
        await self._say("Starting", candidate="v2")
        for weight in (5, 25, 50):
            await self._say("Canary", candidate="v2", weight=weight)
            await asyncio.sleep(0.4)
        await self._say("Promoting", candidate="v2", weight=100)
        await self._end("v2", "Promoted", "Promoted", live="v2")

    async def _v3(self) -> None:
        await self._say("Canary", candidate="v3", weight=25)
        await asyncio.sleep(0.6)
        self._event("RollingBack", "SlowRequests: 9 of 60 requests were slower than 50ms")
        await self._say("RollingBack", candidate="v3", weight=0)
        await self._end("v3", "RolledBack", "SlowRequests")

    async def _v4(self) -> None:
        await self._say("Starting", candidate="v4")
        await self._end("v4", "Failed", "ModelLoadFailed")

    async def _v5(self) -> None:
        await self._say("Starting", candidate="v5")
        await self._end("v5", "Failed", "DigestMismatch")

    async def _end(self, version: str, outcome: str, reason: str, live: str = "") -> None:
        await asyncio.sleep(0.2)
        self.live = live or self.live
        self.last = {"version": version, "outcome": outcome, "reason": reason, "message": "", "finishedAt": version}
        await self._say({"Promoted": "Live"}.get(outcome, outcome))

    async def _say(self, phase: str, candidate: str = "", weight: int = 0) -> None:
        self.candidate, self.weight = candidate, weight
        status: dict[str, Any] = {"phase": phase, "weight": f"{weight}%" if candidate else None}
        status |= {"live": {"version": self.live}} if self.live else {}
        status |= {"candidate": {"version": candidate}} if candidate else {}
        status |= {"lastRelease": self.last} if self.last else {}
        status["conditions"] = [{"type": "Ready", "status": "True" if self.live else "False"}]
        resource = {"kind": "ModelDeployment", "metadata": {"generation": 1}, "status": status}
        self._append("modeldeployment", {"type": "MODIFIED", "object": resource})
        await asyncio.sleep(0.05)

    def _event(self, reason: str, message: str) -> None:
        target = {"kind": "ModelDeployment", "name": "fraud-scorer"}
        event = {"metadata": {"name": reason}, "involvedObject": target, "reason": reason, "message": message}
        self._append("events", {"type": "ADDED", "object": event})

    def _append(self, name: str, document: dict[str, Any]) -> None:
        with (self.folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(document, indent=4) + "\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                version = self.candidate if random.random() * 100 < self.weight else self.live
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Model-Version: {version}\r\n\r\n{{}}".encode())
                if b"onnection: close" in head:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def pretender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretender]:
    monkeypatch.setenv("FOLDER", str(tmp_path))
    acting = Pretender(tmp_path)
    acting.thread.start()
    assert acting.started.wait(5)
    yield acting
    assert acting.task is not None
    acting.loop.call_soon_threadsafe(acting.task.cancel)
    acting.thread.join(5)


def test_the_whole_demo(
    pretender: Pretender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "CALM_SECONDS", 0.4)
    monkeypatch.setattr(live, "PLAIN_EVERY_SECONDS", 0.5)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    info = ClusterInfo(
        tmp_path / "config", kubectl, kubectl, ("gateway-system", "public"), f"http://127.0.0.1:{pretender.port}"
    )
    models = {v: Built(v, tmp_path, "sha256:" + "0" * 64, 0.9) for v in VERSIONS}
    tools = kube.Tools(info.kubectl, info.helm, info.kubeconfig)
    run = demo.Demo(tools, info, models, tmp_path)
    run.run(rate=300)
    kept = run.report({"setup_s": 1.0})
    printed = capsys.readouterr().out
    assert kept, printed
    applied = yaml.safe_load((tmp_path / "applied" / "modeldeployment-v5.yaml").read_text())
    assert applied["spec"]["route"]["parentRefs"] == [{"name": "public", "namespace": "gateway-system"}]
    assert "event RollingBack: SlowRequests" in printed
    result = dict(part.split("=") for part in printed.strip().splitlines()[-1].split()[1:])
    assert result["failed"] == "0"
    assert int(result["v3_requests"]) > 10
    assert (tmp_path / "timeline.png").stat().st_size > 20_000
    assert "SlowRequests" in (tmp_path / "timeline.html").read_text()


def test_a_demo_that_gets_nowhere_says_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "WAIT_SECONDS", {"v1": 0.3})
    monkeypatch.setenv("FOLDER", str(tmp_path))
    (tmp_path / "applied").mkdir()
    for name in ("modeldeployment", "events"):
        (tmp_path / f"{name}.jsonl").touch()
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    info = ClusterInfo(tmp_path / "config", kubectl, kubectl, ("gateway-system", "public"), "http://127.0.0.1:9")
    models = {"v1": Built("v1", tmp_path, "sha256:" + "0" * 64, 0.9)}
    run = demo.Demo(kube.Tools(kubectl, kubectl, info.kubeconfig), info, models, tmp_path)
    with pytest.raises(DemoError, match=r"v1 goes live: not within 0 s; last seen: no status at all"):
        run.run(rate=10)


def test_a_failed_command_shows_what_it_said(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    with pytest.raises(kube.CommandError, match="no such command: delete everything"):
        kube.Tools(kubectl, kubectl, tmp_path / "config").run("delete", "everything")


def test_documents_are_read_from_either_kind_of_json() -> None:
    first = {"a": {"b": [1, {"c": "}"}]}}
    text = json.dumps(first, indent=4) + "\n" + json.dumps({"d": 2}) + "\n" + json.dumps(first, indent=2) + "\n"
    assert list(kube.documents(iter(text.splitlines(keepends=True)))) == [first, {"d": 2}, first]


def test_the_live_table_shows_weight_and_failures() -> None:
    seen = Snapshot(1.0, phase="Canary", live="v1", candidate="v2", weight=25)
    records = [
        Record(1.0, 4.0, 200, "", "v1", "", "keepalive", 1),
        Record(1.0, 4.0, 0, "reset", "", "", "keepalive", 1),
    ]

    console = Console(width=140)
    with console.capture() as captured:
        console.print(live.render(seen, records))
    text = captured.get()
    for word in ("Canary", "25 %", "v1", "1 (100.00 %)"):
        assert word in text


def test_two_demos_do_not_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERINUS_CACHE", str(tmp_path))
    with prepare.alone(), pytest.raises(prepare.BusyError, match="another demo"), prepare.alone():
        pass
    with prepare.alone():
        pass


def test_image_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare.Images.from_environment().full("runtime") == "serinus-runtime:dev"
    monkeypatch.setenv("IMAGE_PREFIX", "registry.example.com/team/")
    monkeypatch.setenv("IMAGE_TAG", "1.2")
    assert prepare.Images.from_environment().full("operator") == "registry.example.com/team/serinus-operator:1.2"
