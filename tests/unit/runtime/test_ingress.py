"""The gate before decoding: what it refuses costs nothing else, and what it lets in carries what it was told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from serinus_runtime.batching import Ticket
from serinus_runtime.http import Exchange
from serinus_runtime.state import Refusal
from unit.runtime.support import GateEngine, Live, gated, infer_body, request

PATH = "/v2/models/model/infer"


class Gate:
    """Lets in whoever has a key."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []

    def admit(self, exchange: Exchange, ticket: Ticket) -> Refusal | None:
        self.tickets.append(ticket)
        if b"x-key" not in exchange.headers:
            return Refusal("invalid", 401, "send a key", b"www-authenticate: Bearer\r\n")
        ticket.priority = 2
        return None

    def decoded(self, ticket: Ticket, rows: int, parameters: Mapping[str, Any] | None) -> None:
        assert (rows, parameters) == (1, None)

    def closed_to(self, exchange: Exchange, path: bytes) -> Refusal | None:
        return None


def test_a_refusal_is_the_answer_and_nothing_is_decoded() -> None:
    engine, gate = GateEngine(), Gate()
    with Live(gated(engine)) as live:
        live.server.state.ingress = gate
        status, headers, body = request(live.port, "POST", PATH, b"this is not JSON")
        assert (status, json.loads(body), headers["www-authenticate"]) == (401, {"error": "send a key"}, "Bearer")
        status, _, body = request(live.port, "POST", PATH, infer_body([1, 2, 3]), {"X-Key": "k"})
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [6.0])
        assert request(live.port, "GET", "/v2")[0] == 200
        metrics = live.metrics()
    assert [ticket.rows for ticket in gate.tickets] == [0, 1]
    assert metrics['serinus_requests_total{code="401"}'] == 1
    assert metrics["serinus_inflight_requests"] == 0
    assert engine.batches == [1]
