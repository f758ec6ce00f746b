"""A watch that ends in the middle goes on where it was, and says in order what happened."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from support.changes import Watch
from support.eventually import eventually


def owner(version: int, phase: str, weight: int) -> dict[str, Any]:
    status = {"phase": phase, "release": {"step": 0, "weight": weight}}
    return {"kind": "ModelDeployment", "metadata": {"name": "m", "resourceVersion": str(version)}, "status": status}


def route(version: int, **weights: int) -> dict[str, Any]:
    refs = [{"name": f"m-{revision}", "weight": weight} for revision, weight in weights.items()]
    rules = [{"backendRefs": refs}]
    return {"kind": "HTTPRoute", "metadata": {"name": "m", "resourceVersion": str(version)}, "spec": {"rules": rules}}


HISTORY = {
    "modeldeployments": [
        owner(1, "Live", 0), owner(2, "Canary", 5), owner(3, "Canary", 5), owner(5, "RollingBack", 0),
        owner(6, "Live", 0),
    ],
    "httproutes": [route(1, a=100), route(4, a=95, b=5), route(7, a=100)],
}  # fmt: skip


@contextmanager
def api_server(asked: list[tuple[str, str]]) -> Iterator[client.ApiClient]:
    """Two changes for each call; the call that asks for what comes after version 3 is told once that this is gone."""
    gone = [True]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            kind = parts.path.rpartition("/")[2]
            if kind == "m":
                first = HISTORY[parts.path.split("/")[-2]][0]
                self.answer([json.dumps(first).encode()])
                return
            query = parse_qs(parts.query)
            since = query.get("resourceVersion", ["0"])[0]
            asked.append((kind, since))
            assert "watch" in query
            events = [
                {"type": "MODIFIED", "object": one}
                for one in HISTORY[kind]
                if int(one["metadata"]["resourceVersion"]) > int(since)
            ]
            if (kind, since) == ("modeldeployments", "3") and gone:
                gone.clear()
                events = [
                    {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": ""}}
                ]
            self.answer([json.dumps(event).encode() + b"\n" for event in events[:2]])

        def answer(self, lines: list[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            for line in lines:
                self.wfile.write(line)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_change_is_noted_in_order_across_calls() -> None:
    asked: list[tuple[str, str]] = []
    told: list[str] = []
    with api_server(asked) as api, Watch(api, "ns", "m", on_change=lambda state: told.append(state[0])) as watch:

        def all_there() -> None:
            assert watch.states[-1:] == [("Live", 0, 0)]
            assert ("RollingBack", 0, 0) in watch.states
            assert len(watch.routes) == 3

        eventually(all_there, interval=0.01, timeout=8)
    # Told that its place is gone it begins again, and so sees the beginning twice.
    assert told == ["Live", "Canary", "Live", "Canary", "RollingBack", "Live"]
    assert watch.routes == [{"a": 100}, {"a": 95, "b": 5}, {"a": 100}]
    assert asked[0][1] == "1", "a watch begins after what was read first"
    assert ("modeldeployments", "3") in asked
    assert len(watch.problems) == 1
