"""One JSON object per line on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time


def event(level: str, message: str, **fields: object) -> None:
    """Writes one log line; `level` is info, warning or error. A stderr that is gone is not an error."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    line = json.dumps({"ts": f"{stamp}Z", "level": level, "msg": message, **fields})
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
