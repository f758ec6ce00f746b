"""grpcio with a pool of threads."""

import sys
from concurrent import futures

import grpc
from common import session
from grpc_common import NAME, answer, pb

model = session(sys.argv[1])
server = grpc.server(futures.ThreadPoolExecutor(4), maximum_concurrent_rpcs=None)
handler = grpc.unary_unary_rpc_method_handler(
    lambda request, _: answer(model, request), pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"ModelInfer": handler}),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
server.start()
server.wait_for_termination()
