"""As much of protobuf's wire format as the hot path needs: lengths, and where fields begin and end."""

from __future__ import annotations

_LAST_ONE_BYTE = 0x7F
_ID, _RAW = 0x1A, 0x3A
"""Tags of ModelInferRequest: `id` and `raw_input_contents`."""
_HEAD_TAGS = frozenset((0x0A, 0x12, 0x22, 0x2A, 0x32))
"""Its other fields: names, parameters, inputs, outputs."""
_MAX_PARTS = 1024
_SMALL = tuple(bytes((size,)) for size in range(_LAST_ONE_BYTE + 1))


def varint(number: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    if number <= _LAST_ONE_BYTE:
        return _SMALL[number]
    parts = bytearray()
    while number > _LAST_ONE_BYTE:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def field(tag: bytes, data: bytes) -> bytes:
    """A field that has a length."""
    return tag + varint(len(data)) + data


def split(body: bytes) -> tuple[bytes, str | None, list[memoryview]] | None:
    """A ModelInferRequest in three: what describes it, its id, and its raw tensors.

    None for what is not plain: other fields, raw tensors that are not at the end, several ids, lengths that do not fit.
    Joined, the parts say the same as `body`: protobuf does not mind where a field lies.
    """
    at, end = 0, len(body)
    head_end = -1
    id_start = id_end = 0
    request_id: str | None = None
    raw: list[memoryview] = []
    view: memoryview | None = None
    while at < end:
        start = at
        tag = body[at]
        at += 1
        size = shift = 0
        while True:
            if at >= end or shift > 28:
                return None
            byte = body[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte <= _LAST_ONE_BYTE:
                break
            shift += 7
        start_of_data = at
        at += size
        if at > end:
            return None
        if tag == _RAW:
            if head_end < 0:
                head_end = start
                view = memoryview(body)
            elif len(raw) >= _MAX_PARTS:
                return None
            assert view is not None
            raw.append(view[start_of_data:at])
        elif head_end >= 0:
            return None
        elif tag == _ID:
            if request_id is not None:
                return None
            try:
                request_id = body[start_of_data:at].decode()
            except UnicodeDecodeError:
                return None
            id_start, id_end = start, at
        elif tag not in _HEAD_TAGS:
            return None
    if head_end < 0:
        return None
    if request_id is None:
        return body[:head_end], None, raw
    return body[:id_start] + body[id_end:head_end], request_id or None, raw


def top_fields(body: bytes, most: int) -> int:
    """How many fields `body` has at its top, counted up to `most` + 1; what cannot be read ends the count."""
    at, end, count = 0, len(body), 0
    while at < end and count <= most:
        tag, at = _read(body, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read(body, at)
        elif kind == 1:
            at += 8
        elif kind == 2:
            size, at = _read(body, at)
            at += size
        elif kind == 5:
            at += 4
        else:
            break
        count += 1
    return count


def _read(body: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; past the end of `body` when it is cut off or too long."""
    number = shift = 0
    end = len(body)
    while at < end and shift < 70:
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte <= _LAST_ONE_BYTE:
            return number, at
        shift += 7
    return 0, end + 1
