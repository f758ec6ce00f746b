"""`serinus rollback` and `serinus status --wait` over HTTP; a world of the state machine stands for the cluster."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kubernetes.aio import client as k8s

from serinus.api import GROUP
from serinus.cli import main
from serinus.cli.access import Cluster
from serinus.cluster.client import Api
from serinus.cluster.kinds import MODEL_DEPLOYMENT, OWNED, WHO_AM_I
from unit.cli.test_cli import picture
from unit.release.world import NAME, World, settled, spec, with_live

OWNER = MODEL_DEPLOYMENT.path("shop", NAME)
WHO = WHO_AM_I.path(None)
LISTS = {kind.path("shop"): kind.kind for kind in OWNED}


@contextmanager
def served(world: World, monkeypatch: pytest.MonkeyPatch, *, ticks: int = 0) -> Iterator[list[dict[str, Any]]]:
    """An API server that shows `world` to the command line, and gives it `ticks` at each look.

    Annotations of the verbs reach the world, as they reach the operator. Yields the bodies of all patches.
    """
    patches: list[dict[str, Any]] = []

    class Server(BaseHTTPRequestHandler):
        def answer(self, status: int, body: Any) -> None:
            text = json.dumps(body, default=str).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def body(self) -> Any:
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == OWNER:
                for _ in range(ticks):
                    world.tick()
                self.answer(200, picture(world).owner)
            elif path in LISTS:
                items = list(picture(world).children.of(LISTS[path]).values())
                self.answer(200, {"apiVersion": "v1", "items": items, "metadata": {}})
            else:
                self.answer(404, {"kind": "Status", "code": 404})

        def do_POST(self) -> None:
            asked = self.body()
            self.answer(201, {**asked, "status": {"userInfo": {"username": "ada"}}} if WHO in self.path else asked)

        def do_PATCH(self) -> None:
            patches.append({"path": self.path.partition("?")[0], **self.body()})
            for key, value in patches[-1]["metadata"]["annotations"].items():
                world.asked[key.partition("/")[2]] = value
            self.answer(200, {})

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"

        async def connect(*_: object) -> Cluster:
            return Cluster(Api(k8s.ApiClient(k8s.Configuration(host=address))), "shop")

        monkeypatch.setattr(Cluster, "connect", connect)
        monkeypatch.setattr(main, "_EVERY", 0.0)
        try:
            yield patches
        finally:
            server.shutdown()


def promoted() -> World:
    """v2 is live, v1 is kept."""
    world = with_live()
    world.apply(spec("v2"))
    world.run(lambda w: settled(w) and w.live() == "v2")
    return world


@pytest.mark.parametrize("wanted", [[], ["--to", "v1"], ["--to", "previous"]])
def test_rollback_asks_for_the_kept_revision_and_gets_it(
    wanted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = promoted()
    assert world.status.previous is not None
    kept = world.status.previous.revision
    with served(world, monkeypatch) as patches:
        assert main.main(["rollback", NAME, *wanted]) == main.OK
    assert capsys.readouterr().out == f"modeldeployment/{NAME} is asked to go back to version v1 ({kept})\n"
    (patch,) = patches
    assert patch["path"] == OWNER
    (written,) = patch["metadata"]["annotations"].items()
    assert written[0] == f"{GROUP}/rollback"
    assert re.fullmatch(rf"{kept}#20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ada", written[1]), "what, when and who"
    world.tick()
    assert world.route[kept] == 100, "the state machine understands what was written"
    world.run(lambda w: settled(w) and w.live() == "v1")


@pytest.mark.parametrize(
    ("errors", "live", "code"), [(0.5, "v1", main.ROLLED_BACK), (0.0, "v2", main.OK)], ids=["rolled back", "promoted"]
)
def test_the_exit_code_of_wait_tells_how_the_release_ended(
    errors: float, live: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.error_rate[world.target().name] = errors
    with served(world, monkeypatch, ticks=4):
        assert main.main(["status", NAME, "--wait"]) == code
    assert settled(world)
    assert world.live() == live
    shown = capsys.readouterr().out
    assert "candidate" in shown, "it was looked at while it was under way"
    assert ("ErrorRateTooHigh" in shown) == (code == main.ROLLED_BACK)
