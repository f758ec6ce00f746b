"""The JSON of an inference request. Typed decoding needs classes that are not compiled."""

from __future__ import annotations

from typing import Any

import msgspec


class Input(msgspec.Struct):
    """One tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class Output(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct):
    """A request."""

    inputs: list[Input]
    outputs: list[Output] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


request_decoder = msgspec.json.Decoder(Request)
