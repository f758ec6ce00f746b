"""gRPC without a framework: HTTP/2 on the event loop, `hpack` for headers, `protobuf` for messages."""
