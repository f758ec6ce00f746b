"""What is wrong with a request, said so that its sender can repair it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from serinus_runtime.datatypes import Array

_T = TypeVar("_T")
_EMPTY_SIZES = 1 << 16


class InvalidRequestError(Exception):
    """The request cannot be answered as it is; the text names the field, what was expected and what came."""


def decode_json(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """What `decoder` reads from `body`. Raises InvalidRequestError."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(located(str(error), "$", "the request")) from None
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body cannot be read: {error}") from None


def located(message: str, root: str, fallback: str) -> str:
    """msgspec's `Expected X, got Y - at `$.a`` turned around: `$.a: expected X, got Y`."""
    text, found, where = message.partition(" - at `")
    place = where.rstrip("`").replace("$", root, 1) if found else fallback
    return f"{place}: {text[:1].lower()}{text[1:]}"


def listed(names: Iterable[str]) -> str:
    """Names in quotes, the first forty of them."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:40]) + (f" and {len(quoted) - 40} more" if len(quoted) > 40 else "")


def reshaped(name: str, array: Array, shape: Sequence[int]) -> Array:
    """`array` in `shape`, which has as many elements. Raises InvalidRequestError for sizes that no memory has.

    A tensor without elements says nothing of its other dimensions, yet a model may make outputs of their size.
    """
    if not array.size and math.prod(size for size in shape if size) > _EMPTY_SIZES:
        raise InvalidRequestError(f"input {name!r}: the shape {list(shape)} is too large for a tensor without elements")
    return array.reshape(shape)
