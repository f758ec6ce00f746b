"""The JSON of a plain inference request: flat lists of numbers. Typed decoding needs classes that are not compiled."""

from __future__ import annotations

import msgspec


class PlainInput(msgspec.Struct, gc=False):
    """One tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]
    parameters: msgspec.Raw | None = None


class PlainRequest(msgspec.Struct):
    """A request."""

    inputs: list[PlainInput]
    outputs: msgspec.Raw | None = None
    id: str | None = None
    parameters: msgspec.Raw | None = None


decode = msgspec.json.Decoder(PlainRequest).decode
