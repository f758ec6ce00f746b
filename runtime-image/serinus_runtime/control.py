"""Clients that load and unload the model: the model repository extension of the Open Inference Protocol.

Off unless SERINUS_MODEL_CONTROL says `explicit`, and then only for keys and tokens whose scopes name `control`. What is
asked for is done one after the other, in the order of asking; a load that is asked for while another is under way
begins behind it, since the files may be other ones by then, and all who ask meanwhile share it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from serinus_runtime import logs, state
from serinus_runtime.http import Exchange
from serinus_runtime.ingress.door import Door
from serinus_runtime.ingress.keys import CONTROL
from serinus_runtime.state import Refusal

PATH = b"/v2/repository/models/"
LOAD, UNLOAD = "load", "unload"
GUARDED = (
    "this server serves the one model that it was started with: to serve another, start another server with it; to let "
    "clients load it anew and unload it, set SERINUS_MODEL_CONTROL=explicit and give a key scopes=control"
)
_NO_KEYS = (
    "nobody may load or unload here, as nobody is asked for a key: name a file with SERINUS_API_KEYS_FILE whose keys "
    "have scopes=control"
)
_MOST = 8
"""Loads and unloads that wait, one kind after the other; more are refused."""
_ALLOWED: Mapping[str, frozenset[str]] = {LOAD: frozenset(), UNLOAD: frozenset({"unload_dependents"})}
"""Parameters of the extension that are understood: this server's model has no dependents."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of it: an HTTP status, and for all but 200 why; `headers` are whole lines."""

    status: int
    text: str = ""
    headers: bytes = b""


def refused_as(refusal: Refusal) -> Outcome:
    """What is told of a request that is refused, told of a load or an unload."""
    return Outcome(refusal.status, refusal.message, refusal.headers)


DONE = Outcome(200)
GOING = refused_as(state.GOING)
_BUSY = Outcome(429, "too many loads and unloads wait already: try again later", b"retry-after: 1\r\n")
Answer = Callable[[Outcome], None]
Work = Callable[[], Awaitable[Outcome]]


class _Asked:
    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.answers: list[Answer] = []

    def answer(self, outcome: Outcome) -> None:
        answers, self.answers = self.answers, []
        for answer in answers:
            answer(outcome)


class Control:
    """Of one server and its model `name`; belongs to the event loop. `load` and `unload` do what their names say."""

    def __init__(self, name: str, door: Door, load: Work, unload: Work) -> None:
        self._name = name
        self._door = door
        self._work = {LOAD: load, UNLOAD: unload}
        self._waiting: deque[_Asked] = deque()
        self._current: _Asked | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def under_way(self) -> bool:
        """True while a model is loaded or given up."""
        return self._current is not None

    def ask(
        self, headers: Mapping[bytes, bytes], verb: str, model: str, parameters: Iterable[str], answer: Answer
    ) -> None:
        """`answer` is called once, perhaps before this returns. `parameters` are the names of those that were given."""
        refused = self._refusal(headers)
        if refused is not None:
            answer(refused)
        elif model != self._name:
            answer(Outcome(404, f"model {model[:200]!r} is not served here; this server has {self._name!r}"))
        elif unknown := sorted(set(parameters) - _ALLOWED[verb]):
            answer(Outcome(400, f"parameter {unknown[0][:100]!r} is not understood: a model is loaded as the server's "
                           "settings name it, from its directory"))  # fmt: skip
        elif self._leaving:
            answer(GOING)
        else:
            self._queue(verb, answer)

    def _refusal(self, headers: Mapping[bytes, bytes]) -> Outcome | None:
        if not self._door.asks_for_keys:
            return Outcome(403, _NO_KEYS)
        refused = self._door.may(headers, CONTROL)
        return None if refused is None else Outcome(refused.status, refused.message, refused.headers)

    def _queue(self, verb: str, answer: Answer) -> None:
        if not self._waiting or self._waiting[-1].verb != verb:
            if len(self._waiting) >= _MOST:
                answer(_BUSY)
                return
            self._waiting.append(_Asked(verb))
        self._waiting[-1].answers.append(answer)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            asked = self._current = self._waiting.popleft()
            try:
                outcome = await self._work[asked.verb]()
            except Exception as error:
                logs.event("error", "what a client asked of the model failed", verb=asked.verb, error=repr(error))
                outcome = Outcome(500, "internal error")
            finally:
                self._current = None
            asked.answer(outcome)

    def leave(self) -> None:
        """The process is about to go: who waits is told so, and nothing more is begun."""
        self._leaving = True
        if self._current is not None:
            self._current.answer(GOING)
        while self._waiting:
            self._waiting.popleft().answer(GOING)

    def handle(self, exchange: Exchange, path: bytes) -> bool:
        """Answers `POST /v2/repository/models/M/load` and `unload`; False where `path` is neither."""
        name, _, verb = path[len(PATH) :].decode("utf-8", "replace").rpartition("/")
        if verb not in self._work or not name:
            return False
        if exchange.method != b"POST":
            _error(exchange, Outcome(405, "only POST is understood here", b"allow: POST\r\n"))
            return True
        parameters: Iterable[str] = ()
        try:
            if exchange.body.strip():
                parameters = _body.decode(exchange.body).parameters
        except (ValueError, RecursionError) as error:
            _error(exchange, Outcome(400, f'the body must be empty or such as {{"parameters": {{}}}}: {error}'))
            return True
        self.ask(exchange.headers, verb, name, parameters, partial(_reply, exchange))
        return True


class _Body(msgspec.Struct):
    parameters: dict[str, Any] = {}


_body = msgspec.json.Decoder(_Body)


def _reply(exchange: Exchange, outcome: Outcome) -> None:
    if outcome.status == 200:
        exchange.respond(200, b"{}")
    else:
        _error(exchange, outcome)


def _error(exchange: Exchange, outcome: Outcome) -> None:
    exchange.respond(outcome.status, msgspec.json.encode({"error": outcome.text}), headers=outcome.headers)
