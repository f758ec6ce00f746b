"""No server at all, as a ceiling: uvloop, httptools and msgspec, a batch per tick, no checks, no metrics, no limits."""

import asyncio
import sys

import httptools
import msgspec
import numpy as np
import uvloop
from common import session


class Input(msgspec.Struct, gc=False):
    data: list[float]


class Request(msgspec.Struct, gc=False):
    inputs: list[Input]


decode = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode
model = session(sys.argv[1])
waiting = []


def flush():
    batch = waiting[:32]
    del waiting[:32]
    if waiting:
        asyncio.get_running_loop().call_soon(flush)
    (y,) = model.run(["y"], {"x": np.array([data for _, data in batch], dtype=np.float32)})
    for (transport, _), row in zip(batch, y.tolist(), strict=True):
        body = (
            b'{"model_name":"model","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":'
            + encode(row)
            + b"}]}"
        )
        transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        data = decode(self.body).inputs[0].data if self.body else [0.0] * 30
        self.body = b""
        if not waiting:
            asyncio.get_running_loop().call_soon(flush)
        waiting.append((self.transport, data))


async def main():
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", int(sys.argv[2]))
    await server.serve_forever()


uvloop.run(main())
