from typing import TypeVar

from serinus_runtime.datatypes import Array

_T = TypeVar("_T")

def add_line(
    lines: bytearray,
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
    rows: int,
    name: str | bytes,
    array: Array | bytes | None,
    middle: bytes,
    tail: bytes,
) -> bool: ...
def answer(
    status_line: bytes,
    common: bytes,
    request_id: bytes,
    content_type: bytes,
    headers: bytes,
    body: bytes,
    silent: bool,
) -> bytes: ...
def floats(text: bytes, start: int, count: int, wide: bool) -> tuple[bytes, int] | None: ...
def known_body(body: bytes, forms: dict[bytes, tuple[int, bool, bytes, _T]]) -> tuple[_T, bytes] | None: ...
def known_head(data: bytes, heads: dict[bytes, _T]) -> tuple[_T, bytes] | None: ...
def line(
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
    rows: int,
    name: str | bytes,
    array: Array | bytes | None,
    middle: bytes,
    tail: bytes,
) -> bytes | None: ...
def numbered(prefix: bytes, number: int) -> bytes: ...
