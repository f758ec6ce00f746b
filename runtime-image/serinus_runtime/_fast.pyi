def floats(text: bytes, start: int, count: int, wide: bool) -> tuple[bytes, int] | None: ...
def times(
    wall: float,
    request_id: bytes,
    code: int,
    received: float,
    queued: float,
    started: float,
    finished: float,
    answered: float,
) -> bytes: ...
