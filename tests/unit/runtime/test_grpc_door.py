"""The door as gRPC's clients see it: the same keys and rates, as metadata and statuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from serinus_runtime.grpc import status
from serinus_runtime.grpc.schema import message_class
from serinus_runtime.ingress.ratelimit import Rate
from unit.runtime import h2
from unit.runtime.support import GateEngine, Live, gated, infer

_REQUEST = message_class("inference.ModelInferRequest")


def _ask() -> bytes:
    request = _REQUEST(model_name="model")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    request.raw_input_contents.append(np.array([1, 2, 3], dtype="<f4").tobytes())
    data: bytes = request.SerializeToString()
    return data


def _statuses(live: Live, *metadata: dict[str, str]) -> list[int]:
    with h2.connect(live.server.grpc_port) as client:
        found = []
        for index, more in enumerate(metadata):
            client.call(2 * index + 1, _ask(), more=more)
            found.append(client.answer(2 * index + 1).status)
        return found


def test_keys_come_as_metadata(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("shop shop-key-1\nscraper scraper-key-1 scopes=metrics\n")
    with Live(gated(GateEngine()), grpc_port=0, api_keys_file=keys) as live:
        assert _statuses(
            live,
            {},
            {"authorization": "Bearer shop-key-1"},
            {"x-api-key": "shop-key-1"},
            {"x-api-key": "scraper-key-1"},
            {"x-api-key": "nobody-knows"},
        ) == [
            status.UNAUTHENTICATED,
            status.OK,
            status.OK,
            status.PERMISSION_DENIED,
            status.UNAUTHENTICATED,
        ]
        assert live.metrics()['serinus_client_requests_total{client="shop",outcome="admitted"}'] == 2


def test_a_client_has_one_rate_over_both_protocols() -> None:
    with Live(gated(GateEngine()), grpc_port=0, rate_limit=Rate(0.001, 3)) as live:
        with h2.connect(live.server.grpc_port) as client:
            client.call(1, _ask())
            told = client.answer(1)
        assert (told.status, told.fields["ratelimit"].split(";")[1]) == (status.OK, "r=2")
        assert _statuses(live, {}) == [status.OK]
        assert infer(live.port, [1, 2, 3])[0] == 200
        assert _statuses(live, {}) == [status.RESOURCE_EXHAUSTED]
        assert infer(live.port, [1, 2, 3])[0] == 429


def test_what_http_tells_nobody_without_a_key_this_port_does_not_tell_either(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("shop shop-key-1\nscraper scraper-key-1 scopes=metrics\n")
    service = "/inference.GRPCInferenceService/"
    open_ones = {"ServerLive": b"", "ServerReady": b"", "ModelReady": b"\x0a\x05model"}
    others = {"ServerMetadata": b"", "ModelMetadata": b"\x0a\x05model", "ModelConfig": b"\x0a\x05model",
              "ModelStatistics": b"", "RepositoryIndex": b""}  # fmt: skip

    def told(live: Live, calls: dict[str, bytes], more: dict[str, str]) -> set[int]:
        with h2.connect(live.server.grpc_port) as client:
            found = set()
            for index, (name, body) in enumerate(calls.items()):
                client.call(2 * index + 1, body, service + name, more=more)
                found.add(client.answer(2 * index + 1).status)
            return found

    with Live(gated(GateEngine()), grpc_port=0, api_keys_file=keys) as live:
        assert told(live, open_ones, {}) == {status.OK}
        assert told(live, others, {}) == {status.UNAUTHENTICATED}
        assert told(live, others, {"x-api-key": "scraper-key-1"}) == {status.PERMISSION_DENIED}
        assert told(live, others, {"x-api-key": "shop-key-1"}) == {status.OK}
    with Live(gated(GateEngine()), grpc_port=0, api_keys_file=keys, open_paths=frozenset({"metadata"})) as live:
        assert told(live, others, {}) == {status.OK}
