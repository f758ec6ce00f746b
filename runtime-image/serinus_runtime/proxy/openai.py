"""What the front knows of OpenAI's API: who is asked for, how much at most, and what the answer says it took.

A request that cannot be read here is refused, for engines read more than they should (UTF-16, NaN, numbers in strings),
and a limit that is not seen is none. Members that mean nothing to us are for the engine to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from serinus_runtime.proxy.models import ANY

PATHS = frozenset((b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings", b"/v1/responses"))
MODELS = b"/v1/models"
TAIL_BYTES = 4096
"""The end of an answer that is kept, as usage is told there."""
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class _Asked(msgspec.Struct):
    model: object = None
    stream: object = None
    max_tokens: object = None
    max_completion_tokens: object = None
    max_output_tokens: object = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a request took, by the engine's count."""

    prompt: int
    completion: int


class RefusedError(Exception):
    """The request must not reach the engine. `param` names what is wrong."""

    def __init__(self, status: int, message: str, param: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


_asked = msgspec.json.Decoder(_Asked)


def checked(path: bytes, body: bytes, models: Mapping[str, str], max_tokens: int) -> bytes:
    """The body that goes to the engine. Raises RefusedError.

    `models`: the engine's name by the name that clients use; `*` stands for all others. `max_tokens`: how many tokens a
    request may ask for at most (0: any number); one that does not say gets this limit.
    """
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, f"the body must be a JSON object in UTF-8: {error}", "", "invalid_json") from None
    changes: dict[str, object] = {}
    if isinstance(asked.model, str):
        name = models.get(asked.model, asked.model if ANY in models else None)
        if name is None:
            known = ", ".join(sorted(models))
            text = f"the model {asked.model[:200]!r} is not served here; this server has {known}"
            raise RefusedError(404, text, "model", "model_not_found")
        if name != asked.model:
            changes["model"] = name
    if max_tokens and path != b"/v1/embeddings":
        said = False
        for limit in _LIMITS:
            value = getattr(asked, limit)
            said = said or value is not None
            if value is not None and not isinstance(value, int | float):
                raise RefusedError(400, f"{limit} must be a whole number", limit, "invalid_type")
            if value is not None and value > max_tokens:
                text = f"{limit} is {value}; this server gives at most {max_tokens} tokens per answer: ask for fewer"
                raise RefusedError(400, text, limit, "max_tokens_exceeded")
        if not said:
            changes["max_output_tokens" if path == b"/v1/responses" else "max_tokens"] = max_tokens
    if not changes:
        return body
    whole = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**whole, **changes})


def refusal(error: RefusedError) -> bytes:
    """The body of the answer, in the words of OpenAI's clients."""
    told = {"message": str(error), "type": "invalid_request_error", "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": told})


def usage(tail: bytes) -> Usage | None:
    """What the end of an answer, whole or a stream of events, says of the tokens that it took."""
    for found in reversed(_USAGE.findall(tail)):
        try:
            told = msgspec.json.decode(found, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        prompt = _count(told, "prompt_tokens", "input_tokens")
        if prompt is not None:
            return Usage(prompt, _count(told, "completion_tokens", "output_tokens") or 0)
    return None


def _count(told: Mapping[str, object], *names: str) -> int | None:
    for name in names:
        value = told.get(name)
        if type(value) is int and value >= 0:
            return value
    return None
