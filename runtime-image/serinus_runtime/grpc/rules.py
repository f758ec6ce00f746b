"""What single frames must be like (RFC 9113, section 6), whatever came before them."""

from __future__ import annotations

from serinus_runtime.grpc import frames
from serinus_runtime.grpc.frames import ConnectionFaultError, StreamFaultError

_SIZES = {frames.WINDOW_UPDATE: 4, frames.PING: 8, frames.RST_STREAM: 4}


def check(kind: int, stream: int, payload: bytes, last: int) -> None:
    """Looks at a frame that is neither HEADERS, DATA nor SETTINGS; `last` is the highest stream that was opened.

    Raises ConnectionFaultError, StreamFaultError.
    """
    size = len(payload)
    if size != _SIZES.get(kind, size):
        raise ConnectionFaultError(frames.FRAME_SIZE_ERROR, f"a frame of kind {kind} has {_SIZES[kind]} bytes")
    if kind == frames.WINDOW_UPDATE:
        if stream > last:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a WINDOW_UPDATE frame on an idle stream")
        if int.from_bytes(payload, "big") & frames.MAX_WINDOW == 0:
            if stream:
                raise StreamFaultError(stream, frames.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
    elif kind == frames.PING:
        if stream:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a PING frame belongs to no stream")
    elif kind == frames.RST_STREAM:
        if stream == 0 or stream > last:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "an RST_STREAM frame on an idle stream")
    elif kind == frames.PRIORITY:
        if stream == 0:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a PRIORITY frame needs a stream")
        if size != 5:
            raise StreamFaultError(stream, frames.FRAME_SIZE_ERROR, "a PRIORITY frame has five bytes")
        if int.from_bytes(payload[:4], "big") & frames.MAX_WINDOW == stream:
            raise StreamFaultError(stream, frames.PROTOCOL_ERROR, "a stream depends on itself")
    elif kind == frames.GOAWAY:
        if stream:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "a GOAWAY frame belongs to no stream")
        if size < 8:
            raise ConnectionFaultError(frames.FRAME_SIZE_ERROR, "a GOAWAY frame has eight bytes or more")
    elif kind == frames.PUSH_PROMISE:
        raise ConnectionFaultError(frames.PROTOCOL_ERROR, "clients promise nothing")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings in a SETTINGS frame. Raises ConnectionFaultError."""
    if len(payload) % 6:
        raise ConnectionFaultError(frames.FRAME_SIZE_ERROR, "settings have six bytes each")
    found: list[tuple[int, int]] = list(frames.SETTING.iter_unpack(payload))
    for name, value in found:
        if name == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if name == frames.INITIAL_WINDOW_SIZE and value > frames.MAX_WINDOW:
            raise ConnectionFaultError(frames.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
        if name == frames.MAX_FRAME_SIZE and not 16384 <= value < 1 << 24:
            raise ConnectionFaultError(frames.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
    return found


def unpadded(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the payload lies in data[start:end], which begins with the length of its padding."""
    if start == end or data[start] >= end - start:
        raise ConnectionFaultError(frames.PROTOCOL_ERROR, "there is more padding than frame")
    return start + 1, end - data[start]
