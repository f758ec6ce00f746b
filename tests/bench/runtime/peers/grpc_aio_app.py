"""grpc.aio, on uvloop as Python servers of models have it."""

import asyncio
import sys

import grpc
import uvloop
from common import session
from grpc_common import NAME, answer, pb

model = session(sys.argv[1])


async def infer(request, _):
    return answer(model, request)


async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    await server.start()
    await server.wait_for_termination()


asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
asyncio.run(main())
