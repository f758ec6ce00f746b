"""Talks to TorchServe over its sockets, from worker threads; what it answers becomes what the front says."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serinus_runtime.engine.base import CodeError, EngineError, EngineTimeoutError, EngineUnavailableError

_KEPT_CONNECTIONS = 64


class Reply(msgspec.Struct, frozen=True):
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)
        self.used = False

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One API. Thread-safe; connections are kept and used again."""

    def __init__(self, path: Path, token: str, timeout: float) -> None:
        self._path = path
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._lock = threading.Lock()
        self._free: deque[_Connection] = deque()
        self._closed = False

    def get(self, path: str) -> Reply:
        """One GET. Raises EngineUnavailableError or EngineTimeoutError."""
        return self.ask("GET", path, [b""], "")[0]

    def post(self, path: str, bodies: Sequence[bytes], content_type: str) -> list[Reply]:
        """Posts `bodies` at the same time, each as a request of its own. Raises as `get` does."""
        return self.ask("POST", path, bodies, content_type)

    def ask(self, method: str, path: str, bodies: Sequence[bytes], content_type: str) -> list[Reply]:
        """Sends every request before the first answer is read."""
        sent: list[_Connection] = []
        replies: list[Reply] = []
        try:
            for body in bodies:
                sent.append(self._send(method, path, body, content_type))
            for at, body in enumerate(bodies):
                try:
                    replies.append(_read(sent[at]))
                except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                    # A kept connection may have been closed before the request came; a new one tells the truth.
                    if not sent[at].used:
                        raise
                    sent[at].close()
                    sent[at] = self._send(method, path, body, content_type, fresh=True)
                    replies.append(_read(sent[at]))
        except TimeoutError:
            _close(sent)
            raise EngineTimeoutError(f"TorchServe gave no answer in {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            _close(sent)
            raise EngineUnavailableError(f"TorchServe cannot be reached ({error!r:.100}): try again") from None
        with self._lock:
            for connection in sent:
                if connection.sock is None or self._closed or len(self._free) >= _KEPT_CONNECTIONS:
                    connection.close()
                else:
                    connection.used = True
                    self._free.append(connection)
        return replies

    def close(self) -> None:
        """Closes what is kept."""
        with self._lock:
            self._closed = True
            _close(self._free)
            self._free.clear()

    def _send(self, method: str, path: str, body: bytes, content_type: str, *, fresh: bool = False) -> _Connection:
        headers = self._headers | ({"Content-Type": content_type} if content_type else {})
        connection = None
        if not fresh:
            with self._lock:
                connection = self._free.pop() if self._free else None
        if connection is not None:
            try:
                connection.request(method, path, body or None, headers)
            except (BrokenPipeError, ConnectionResetError):
                connection.close()
            else:
                return connection
        connection = _Connection(self._path, self._timeout)
        try:
            connection.request(method, path, body or None, headers)
        except BaseException:
            connection.close()
            raise
        return connection


def _read(connection: _Connection) -> Reply:
    answer = connection.getresponse()
    body = answer.read()
    return Reply(answer.status, answer.getheader("content-type") or "application/json", body)


def _close(connections: Sequence[_Connection] | deque[_Connection]) -> None:
    for connection in connections:
        connection.close()


def message_of(reply: Reply) -> tuple[str, str]:
    """Type and message of an error answer; empty where it is none of TorchServe's own."""
    try:
        told = json.loads(reply.body)
        return str(told["type"]), str(told["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return "", reply.body[:200].decode("utf-8", "replace")


def handler_failed(reply: Reply) -> bool:
    """True for the 503 that TorchServe gives when the handler raised: bad input, or a bad handler."""
    kind, message = message_of(reply)
    return reply.status == 503 and kind == "InternalServerException" and "died" not in message


def refuse(reply: Reply) -> EngineError:
    """The exception for an answer that is not 200."""
    kind, message = message_of(reply)
    text = f"TorchServe answered {reply.status} {kind}: {message}"
    if handler_failed(reply):
        # Else it has answered, but with what nobody can read.
        error = CodeError if message == "Prediction failed" else EngineError
        return error(f"the handler failed on these inputs ({message}); its traceback is in the log")
    if "did not respond in time" in message or reply.status in (408, 504):
        return EngineTimeoutError(text)
    if reply.status in (500, 503) and (kind in ("ServiceUnavailableException", "") or "died" in message):
        return EngineUnavailableError(f"{text}: try again")
    return EngineError(text)
