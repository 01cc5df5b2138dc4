"""The bridge on this process's stdin and stdout."""

import sys
import threading
from typing import BinaryIO

import anyio
import anyio.from_thread
import anyio.lowlevel

from .carrier import DRAIN_S, bridge
from .location import Locate


async def stdio_bridge(locate: Locate, *, drain_s: float = DRAIN_S) -> None:
    """Carry messages between this process's stdio and the hub, until stdin ends. Diagnostics go to stderr."""
    send, receive = anyio.create_memory_object_stream[bytes](64)
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not break the protocol

    async def write(line: bytes) -> None:
        output.write(line + b"\n")
        output.flush()

    async def forward(line: bytes) -> None:
        await send.send(line)

    token = anyio.lowlevel.current_token()

    def read(source: BinaryIO) -> None:
        # A thread of our own, because nothing can interrupt a read: a daemon does not keep the process.
        try:
            for line in source:
                anyio.from_thread.run(forward, line, token=token)
            anyio.from_thread.run(send.aclose, token=token)
        except (RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the loop is gone, and nobody reads any more

    threading.Thread(target=read, args=(sys.stdin.buffer,), daemon=True, name="stdin").start()
    with receive:
        await bridge(
            locate, receive, write, drain_s=drain_s, log=lambda text: print(f"interhub mcp: {text}", file=sys.stderr)
        )
