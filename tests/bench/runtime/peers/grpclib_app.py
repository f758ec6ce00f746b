"""grpclib: Python's hyper-h2 under asyncio, here on uvloop."""

import asyncio
import sys

import uvloop
from common import session
from grpc_common import NAME, answer, pb
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

model = session(sys.argv[1])


class Inference:
    async def infer(self, stream):
        await stream.send_message(answer(model, await stream.recv_message()))

    def __mapping__(self):
        one = Cardinality.UNARY_UNARY
        return {f"/{NAME}/ModelInfer": Handler(self.infer, one, pb.ModelInferRequest, pb.ModelInferResponse)}


async def main():
    server = Server([Inference()])
    await server.start("127.0.0.1", int(sys.argv[2]))
    await server.wait_closed()


asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
asyncio.run(main())
