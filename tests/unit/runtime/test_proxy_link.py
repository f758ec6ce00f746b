"""The HTTP/2 connection to an engine and the queue before it: nothing it says raises, and windows are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus_runtime.grpc import frames
from serinus_runtime.grpc.port import literal
from serinus_runtime.proxy.gate import Gate, Waiting
from serinus_runtime.proxy.h2link import Fields, Link
from serinus_runtime.proxy.problems import FullError

_ANSWER = b"\x88" + literal(b"content-type", b"application/grpc")
_TRAILERS = literal(b"grpc-status", b"0")


class Wire(asyncio.Transport):
    """What was written, as frames."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def sent(self, stream: int) -> tuple[int, bool]:
        """Bytes of body on a stream, and whether it was ended."""
        at, size, over = len(frames.PREFACE), 0, False
        while at < len(self.data):
            high, low, kind, flags, number = frames.HEAD.unpack_from(self.data, at)
            length = high << 8 | low
            assert length <= frames.MAX_FRAME
            if number == stream and kind == frames.DATA:
                size += length
                assert not over, "data behind the end"
                over = bool(flags & frames.END_STREAM)
            at += frames.HEAD_BYTES + length
        return size, over


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heads: list[Fields] = []
        self.body = b""
        self.ends: list[Fields | str] = []
        self.rooms = 0

    def begun(self, fields: Fields) -> None:
        assert not self.ends
        self.heads.append(fields)

    def data(self, payload: bytes) -> None:
        assert not self.ends
        self.body += payload

    def ended(self, fields: Fields) -> None:
        self.ends.append(fields)

    def broken(self, why: str) -> None:
        self.ends.append(why)

    def room(self) -> None:
        self.rooms += 1


def _open() -> tuple[Link, Wire]:
    link, wire = Link(lambda _: None), Wire()
    link.connection_made(wire)
    return link, wire


_FRAME = st.tuples(
    st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 99]), st.binary(max_size=40)
).map(lambda told: frames.head(len(told[3]), *told[:3]) + told[3])
_RIGHT = st.sampled_from(
    [
        frames.settings({}), frames.settings({frames.INITIAL_WINDOW_SIZE: 10}), frames.headers(1, _ANSWER, 0),
        frames.head(3, frames.DATA, 0, 1) + b"abc", frames.headers(1, _TRAILERS, frames.END_STREAM),
        frames.window_update(0, 1000), frames.window_update(1, 1000), frames.goaway(1, 0), frames.rst_stream(3, 8),
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_FRAME, _RIGHT, st.binary(max_size=30)), max_size=12), st.integers(1, 64))
def test_whatever_the_engine_says_every_call_ends_once(said: list[bytes], step: int) -> None:
    link, _ = _open()
    heard = [Heard(), Heard()]
    for each in heard:
        link.open(_ANSWER, each).send(b"request", last=True)
    stream = b"".join(said)
    for at in range(0, len(stream), step):
        link.data_received(stream[at : at + step])
    link.connection_lost(None)
    assert [len(each.ends) for each in heard] == [1, 1]
    assert not link.usable


def test_the_windows_are_kept_and_their_end_is_told() -> None:
    link, wire = _open()
    heard = Heard()
    lane = link.open(_ANSWER, heard)
    lane.send(bytes(200_000))
    assert wire.sent(1) == (65535, False)
    assert lane.held == 200_000 - 65535
    link.data_received(frames.settings({frames.INITIAL_WINDOW_SIZE: 100_000}))
    assert wire.sent(1) == (65535, False), "the connection has a window, too"
    link.data_received(frames.window_update(0, 50_000))
    assert wire.sent(1) == (100_000, False)
    lane.send(b"", last=True)
    link.data_received(frames.window_update(1, 200_000) + frames.window_update(0, 200_000))
    assert wire.sent(1) == (200_000, True)
    assert heard.ends == []


def test_room_is_told_once_what_waits_has_gone_out() -> None:
    link, _ = _open()
    heard = Heard()
    link.open(_ANSWER, heard).send(bytes(300_000))
    assert heard.rooms == 0
    link.data_received(frames.window_update(0, 1 << 20) + frames.window_update(1, 1 << 20))
    assert heard.rooms == 1


def test_an_answer_and_what_it_gives_back_to_the_engines_window() -> None:
    link, wire = _open()
    heard = Heard()
    lane = link.open(_ANSWER, heard)
    lane.send(b"ask", last=True)
    link.data_received(frames.settings({}) + frames.headers(1, _ANSWER, 0))
    piece = frames.head(frames.MAX_FRAME, frames.DATA, 0, 1) + bytes(frames.MAX_FRAME)
    before = len(wire.data)
    link.data_received(piece * 16)
    lane.taken()
    assert frames.window_update(1, 16 * frames.MAX_FRAME) in wire.data[before:]
    link.data_received(frames.headers(1, _TRAILERS, frames.END_STREAM))
    assert len(heard.body) == 16 * frames.MAX_FRAME
    assert heard.ends == [[(b"grpc-status", b"0")]]
    link.data_received(piece * 3)
    assert not wire.aborted, "what crosses the end of a call is no fault"


def test_more_than_the_window_ends_the_connection() -> None:
    link, wire = _open()
    heard = Heard()
    link.open(_ANSWER, heard).send(b"", last=True)
    link.data_received(frames.headers(1, _ANSWER, 0))
    link.data_received((frames.head(frames.MAX_FRAME, frames.DATA, 0, 1) + bytes(frames.MAX_FRAME)) * 17)
    assert wire.aborted
    assert heard.ends == ["the engine's answer is not HTTP/2: more data than its window"]


def test_after_goaway_what_was_taken_is_finished_and_nothing_begun() -> None:
    link, wire = _open()
    first, second = Heard(), Heard()
    link.open(_ANSWER, first).send(b"", last=True)
    link.open(_ANSWER, second).send(b"", last=True)
    link.data_received(frames.goaway(1, 0))
    assert second.ends == ["the engine is going away"]
    assert (link.usable, wire.aborted, first.ends) == (False, False, [])
    link.data_received(frames.headers(1, _ANSWER, 0) + frames.headers(1, _TRAILERS, frames.END_STREAM))
    assert len(first.ends) == 1
    assert wire.aborted


def test_no_more_streams_than_the_engine_takes() -> None:
    link, _ = _open()
    link.data_received(frames.settings({frames.MAX_CONCURRENT_STREAMS: 1}))
    assert link.usable
    lane = link.open(_ANSWER, Heard())
    assert not link.usable
    lane.reset()
    assert link.usable


class Turn(Waiting):
    def __init__(self, name: str, told: list[str], until: float = 10.0, size: int = 1) -> None:
        self.name, self.told, self.until, self.size = name, told, until, size

    def enter(self) -> None:
        self.told.append(f"{self.name} in")

    def overdue(self) -> None:
        self.told.append(f"{self.name} late")


def test_the_gate_lets_in_in_order_and_forgets_nobody() -> None:
    told: list[str] = []
    gate = Gate(1, 3, 100)
    turns = [Turn(name, told, until) for name, until in (("a", 9), ("b", 1), ("c", 9), ("d", 9))]
    for turn in turns:
        gate.put(turn)
    with pytest.raises(FullError):
        gate.put(Turn("e", told))
    gate.sweep(2.0)
    gate.leave(turns[2])
    assert (told, gate.waiting, gate.running) == (["a in", "b late"], 1, 1)
    gate.leave(turns[0], 1.0)
    assert (told[-1], gate.running) == ("d in", 1)
    gate.leave(turns[3])
    gate.leave(turns[3])
    assert (gate.running, gate.waiting) == (0, 0)


def test_the_gate_counts_bytes() -> None:
    told: list[str] = []
    gate = Gate(1, 100, 10)
    gate.put(Turn("a", told))
    waiting = Turn("b", told, size=4)
    gate.put(waiting)
    gate.grew(waiting, 5)
    with pytest.raises(FullError):
        gate.put(Turn("c", told, size=2))
    gate.put(Turn("d", told, size=1))
