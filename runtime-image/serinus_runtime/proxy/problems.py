"""What goes wrong with an engine beside us, and the connecting, where it goes wrong first."""

from __future__ import annotations

import asyncio


class Problem(Exception):
    """The engine did not answer, or not to the end. `answered`: some of the answer had come."""

    def __init__(self, message: str, *, answered: bool = False, timeout: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        self.timeout = timeout


async def connect(made: asyncio.BaseProtocol, host: str, port: int, seconds: float) -> None:
    """A new connection to the engine for `made`. Raises Problem."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_connection(lambda: made, host, port)
    except TimeoutError:
        raise Problem("the engine does not take connections in time", timeout=True) from None
    except OSError as error:
        raise Problem(f"the engine cannot be reached: {error.strerror or error}") from None


class FullError(Exception):
    """As much waits as may; try again in `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after
