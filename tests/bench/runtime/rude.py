"""Rude clients, in a process of their own so that what they do does not delay who measures beside them.

    python -m bench.runtime.rude PORT SECONDS

They send a byte now and then, heads without end, lengths that lie, chunks of garbage, and hang up in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time

CLIENTS = 24


async def _one(port: int, kind: int, until: float) -> None:
    """One rude client after another."""
    choices = random.Random(kind)
    while time.monotonic() < until:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.wait_for(_RUDENESS[kind % len(_RUDENESS)](writer, choices), 10)
                await asyncio.wait_for(reader.read(4096), 6)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.05 + choices.random() * 0.2)


async def _slow_head(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    for byte in b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.2 * choices.random())


async def _slow_body(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    writer.write(b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
    for _ in range(40):
        writer.write(b"x" * 1000)
        await asyncio.sleep(0.2 * choices.random())


async def _endless_head(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    writer.write(b"GET / HTTP/1.1\r\n")
    for number in range(2000):
        writer.write(b"x-%d: %s\r\n" % (number, b"y" * 200))
    await writer.drain()


async def _garbage(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    writer.write(choices.randbytes(5000))


async def _bad_chunks(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    writer.write(b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n" % choices.getrandbits(70) + b"zz\r\n-5\r\n")


async def _pipeline(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
    await writer.drain()


async def _lying_length(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    body = b'{"inputs": []}' * choices.randrange(1, 50)
    writer.write(b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n" + body)


async def _hang_up(writer: asyncio.StreamWriter, choices: random.Random) -> None:
    writer.write(b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"[" * 50000)
    await writer.drain()
    writer.transport.abort()


_RUDENESS = (_slow_head, _slow_body, _endless_head, _garbage, _bad_chunks, _pipeline, _lying_length, _hang_up)


async def _all(port: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(*(_one(port, kind, until) for kind in range(CLIENTS)))


if __name__ == "__main__":
    # Of the core that they share with who measures they take what is left.
    os.nice(19)
    asyncio.run(_all(int(sys.argv[1]), float(sys.argv[2])))
