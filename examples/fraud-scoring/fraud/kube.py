"""kubectl and helm as a user calls them, and a watch that stays open."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]


class CommandError(Exception):
    """A command failed; the text holds the command and what it said."""


@dataclass(frozen=True)
class Tools:
    """Where kubectl, helm and the kubeconfig are."""

    kubectl: Path
    helm: Path
    kubeconfig: Path

    def run(self, *arguments: str, text: str | None = None, timeout: float = 300.0) -> str:
        """Runs kubectl and returns its standard output. Raises CommandError."""
        return self._run([str(self.kubectl), *arguments], text, timeout)

    def run_helm(self, *arguments: str, timeout: float = 600.0) -> str:
        """Runs helm and returns its standard output. Raises CommandError."""
        return self._run([str(self.helm), *arguments], None, timeout)

    def apply(self, *manifests: Object) -> None:
        """Applies objects server-side, which large ConfigMaps need."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", text=document)

    def get(self, *arguments: str) -> Object:
        """`kubectl get ... -o json`, parsed."""
        result: Object = json.loads(self.run("get", *arguments, "-o", "json"))
        return result

    def open_watch(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts `kubectl get ... --watch` with one JSON document per event."""
        command = [str(self.kubectl), "get", *arguments, "--watch", "--output-watch-events", "-o", "json"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.environment()
        )

    def environment(self) -> dict[str, str]:
        """The environment of the commands: KUBECONFIG set."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def _run(self, command: list[str], text: str | None, timeout: float) -> str:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        try:
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=self.environment(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(f"{shown}: no end after {timeout:.0f} s") from None
        if done.returncode != 0:
            raise CommandError(f"{shown}: exit {done.returncode}\n{(done.stderr or done.stdout).strip()}")
        return done.stdout


def documents(stream: Iterable[str]) -> Iterator[Object]:
    """The JSON documents of a stream, indented or one a line, each as soon as it is complete."""
    decoder, buffer = json.JSONDecoder(), ""
    for line in stream:
        buffer += line
        if not line.startswith("}") and not (line.startswith("{") and line.rstrip().endswith("}")):
            continue
        text = buffer.lstrip()
        while text:
            try:
                document, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            yield document
            text = text[end:].lstrip()
        buffer = text


class Watch:
    """Calls `seen` with every object of a watch, in a thread, until closed; reopens a watch that ended."""

    def __init__(self, tools: Tools, arguments: list[str], seen: Callable[[Object], None]) -> None:
        self._tools, self._arguments, self._seen = tools, arguments, seen
        self._closed = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch and its process."""
        self._closed.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._closed.is_set():
            with self._tools.open_watch(*self._arguments) as process:
                self._process = process
                if self._closed.is_set():
                    process.terminate()
                assert process.stdout is not None
                for document in documents(process.stdout):
                    self._seen(document.get("object", document))
            self._closed.wait(1.0)
