"""The door as the HTTP port sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from serinus_runtime.circuit import EngineCircuit
from serinus_runtime.http import Exchange
from serinus_runtime.ingress.deadlines import timeout_parameter
from serinus_runtime.ingress.door import Door, Refused
from serinus_runtime.ingress.keys import CONTROL
from serinus_runtime.ingress.priorities import priority_parameter, ticket_priority
from serinus_runtime.state import Refusal
from serinus_runtime.tickets import Ticket

OPEN_PATHS = ("documents", "metadata", "metrics")
"""What can be told without a key, beside health, which always is: a kubelet has no key."""
_DOCUMENTS = (b"/openapi.json", b"/docs")
_CIRCUIT = "the engine fails again and again: it is left alone for a moment"


def address_of(exchange: Exchange) -> str:
    """The client's network address; empty where it has none."""
    # gRPC's calls have no connection of this kind.
    return exchange.peer or str(getattr(exchange.connection, "address", ""))


class HttpIngress:
    """Puts every inference request through `door`. `open_paths` are told without a key, of OPEN_PATHS."""

    def __init__(self, door: Door, open_paths: frozenset[str], circuit: EngineCircuit | None = None) -> None:
        self.door = door
        self.circuit = circuit
        self._open = open_paths
        self._guarded = door.counts_clients

    def admit(self, exchange: Exchange, ticket: Ticket) -> Refusal | None:
        """See `state.Ingress`."""
        if self.circuit is not None and (wait := self.circuit.retry_after(time.monotonic())) > 0.0:
            return Refusal("circuit_open", 503, _CIRCUIT, b"retry-after: %d\r\n" % max(1, round(wait)))
        headers = exchange.headers
        if not self._guarded and exchange.plain:
            return None
        if not self._guarded and not (
            b"x-request-timeout" in headers
            or b"request-timeout" in headers
            or b"x-envoy-expected-rq-timeout-ms" in headers
            or b"grpc-timeout" in headers
            or b"x-priority" in headers
        ):
            return None
        told = self.door.admit(headers, address_of(exchange), exchange.received)
        if isinstance(told, Refused):
            ticket.client = told.client
            return _refusal(told)
        ticket.client, ticket.lines, ticket.bucket = told.client, ticket.lines + told.headers, told.bucket
        ticket.priority, ticket.deadline, ticket.best = told.priority, told.deadline, told.best
        return None

    def admit_control(self, exchange: Exchange, ticket: Ticket) -> Refusal | None:
        """See `state.Ingress`."""
        told = self.door.admit(exchange.headers, address_of(exchange), exchange.received, CONTROL)
        if isinstance(told, Refused):
            ticket.client = told.client
            return _refusal(told)
        ticket.client, ticket.lines, ticket.deadline = told.client, told.headers, told.deadline
        return None

    def decoded(self, ticket: Ticket, rows: int, parameters: Mapping[str, Any] | None) -> None:
        """See `state.Ingress`."""
        if ticket.bucket is not None and rows > 1:
            ticket.bucket.charge(rows - 1)
        if parameters is None:
            return
        # A parameter that a client of Triton's sends anyway must not undo what a header says.
        if "timeout" in parameters and (timeout := timeout_parameter(parameters["timeout"])) is not None:
            until = time.monotonic() + timeout
            ticket.deadline = until if ticket.deadline is None else min(until, ticket.deadline)
        if "priority" in parameters and (level := priority_parameter(parameters["priority"])) is not None:
            ticket.priority = ticket_priority(level, ticket.best)

    def closed_to(self, exchange: Exchange, path: bytes) -> Refusal | None:
        """See `state.Ingress`."""
        if not self.door.asks_for_keys or path.startswith(b"/v2/health/") or path.endswith(b"/ready"):
            return None
        if path in (b"/healthz", b"/readyz"):
            return None
        group = "documents" if path in _DOCUMENTS else "metrics" if path == b"/metrics" else "metadata"
        if group in self._open:
            return None
        refused = self.door.may(exchange.headers, "metrics" if group == "metrics" else "read")
        return None if refused is None else _refusal(refused)


def _refusal(refused: Refused) -> Refusal:
    return Refusal(refused.reason, refused.status, refused.message, refused.headers)
