"""Closing a listening socket without resetting clients that the kernel has already let in."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header: load the flags; with SYN drop the packet, else keep all of it.
_LOAD_BYTE, _JUMP_IF_SET, _RETURN = 0x30, 0x45, 0x06
_FLAGS_OFFSET, _SYN = 13, 0x02
_PROGRAM = struct.pack(
    "=HBBI HBBI HBBI HBBI",
    *(_LOAD_BYTE, 0, 0, _FLAGS_OFFSET),
    *(_JUMP_IF_SET, 0, 1, _SYN),
    *(_RETURN, 0, 0, 0),
    *(_RETURN, 0, 0, 0xFFFFFFFF),
)


def refuse_new(listener: socket.socket) -> None:
    """Lets no further connection into the queue of `listener`; those in it can still be accepted.

    Who knocks now hears nothing, tries again after a second, and is refused once the socket is closed, or reaches
    another pod. Where the system has no such filter (it is Linux's) nothing happens.
    """
    program = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    descriptor = struct.pack("@HP", len(_PROGRAM) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, descriptor)
