"""A small client of the Kubernetes API: enough to wait for conditions without starting a kubectl each time."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


def write_kubeconfig(target: Path, server: str, authority: Path, certificate: Path, key: Path) -> None:
    """Write a kubeconfig that holds everything it needs, readable by its owner only."""

    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    user = {"client-certificate-data": inline(certificate), "client-key-data": inline(key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "serinus", "cluster": {"server": server, "certificate-authority-data": inline(authority)}}
        ],
        "users": [{"name": "serinus", "user": user}],
        "contexts": [{"name": "serinus", "context": {"cluster": "serinus", "user": "serinus"}}],
        "current-context": "serinus",
    }
    target.touch(mode=0o600)
    target.write_text(yaml.safe_dump(document, sort_keys=False))


class Api:
    """Requests to one API server with a client certificate."""

    def __init__(self, server: str, authority: Path, certificate: Path, key: Path) -> None:
        address = urlsplit(server)
        self._host, self._port = address.hostname or "", address.port or 443
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(certificate, key)

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Send one request; returns the status code and the body's text. OSError when the server cannot be reached."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=5, context=self._context)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": content_type, "Accept": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """Events of a watch, until the server ends it. OSError when the connection breaks or is silent too long."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=90, context=self._context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"{path} was answered with {answer.status}")
            while line := answer.readline():
                yield json.loads(line)
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, Any]:
        """The object at ``path``; empty when there is none (or the server is not ready to say)."""
        status, text = self.request("GET", path)
        document = json.loads(text) if status == 200 else {}
        return document if isinstance(document, dict) else {}

    def ok(self, path: str) -> bool:
        """Whether a GET of ``path`` is answered with 200."""
        return self.request("GET", path)[0] == 200


def condition(document: dict[str, Any], kind: str) -> bool:
    """Whether an object's status has the condition ``kind`` with status True."""
    conditions = document.get("status", {}).get("conditions", [])
    return any(entry.get("type") == kind and entry.get("status") == "True" for entry in conditions)
