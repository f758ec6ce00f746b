"""Who goes first in the queue: levels 1 (highest) to 9, as Triton counts them; 5 is everybody's.

Tickets of the batcher count from 0, lower first: level 5 is 0. Jobs go behind all levels.
"""

from __future__ import annotations

from collections.abc import Mapping

from serinus_runtime.problems import InvalidRequestError

HIGHEST, NORMAL, LOWEST = 1, 5, 9
JOB = 100
"""The ticket's priority of a job."""
_HEADER = b"x-priority"
_LEVELS = {b"%d" % level: level for level in range(LOWEST + 1)}


def priority_of(headers: Mapping[bytes, bytes]) -> int | None:
    """The level in `X-Priority`, or None. Raises InvalidRequestError."""
    if _HEADER not in headers:
        return None
    level = _LEVELS.get(headers[_HEADER].strip())
    if level is None:
        raise InvalidRequestError(
            f"x-priority is {headers[_HEADER][:40].decode('latin-1')!r}; write 1, the highest, to 9"
        )
    return level or None


def priority_parameter(value: object) -> int | None:
    """The level in the parameter `priority` of a request; 0 is none. Raises InvalidRequestError."""
    if type(value) is not int or not 0 <= value <= LOWEST:
        raise InvalidRequestError(f"parameters: priority must be from 1, the highest, to 9, not {value!r:.60}")
    return value or None


def ticket_priority(level: int | None, best: int) -> int:
    """What a ticket gets for `level`, where the client may have `best` at most."""
    return max(level or NORMAL, best) - NORMAL
