"""The bridge on this process's stdin and stdout."""

import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import anyio
import anyio.from_thread
import anyio.lowlevel

from .carrier import DRAIN_S, bridge
from .location import Locate, Look

_READ = 64 * 1024


async def stdio_bridge(locate: Locate, *, look: Look | None = None, drain_s: float = DRAIN_S) -> None:
    """Carry messages between this process's stdio and the hub, until stdin ends or nobody reads stdout any more.

    Diagnostics go to stderr.
    """
    send, receive = anyio.create_memory_object_stream[bytes](64)
    # The descriptors, not the files: a thread of ours that still waits for one at the end of the process would hold a
    # file's lock, which Python then aborts on.
    stdin, output = sys.stdin.fileno(), _Output(sys.stdout.fileno())
    sys.stdout = sys.stderr  # a stray print must not break the protocol

    async def forward(line: bytes) -> None:
        await send.send(line)

    token = anyio.lowlevel.current_token()

    def read() -> None:
        # A thread of our own, because nothing can interrupt a read: a daemon does not keep the process.
        try:
            for line in _lines(stdin):
                anyio.from_thread.run(forward, line, token=token)
            anyio.from_thread.run(send.aclose, token=token)
        except (RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the loop is gone, and nobody reads any more

    def log(text: str) -> None:
        print(f"interhub mcp: {text}", file=sys.stderr)

    threading.Thread(target=read, daemon=True, name="stdin").start()
    with receive:
        async with anyio.create_task_group() as tasks:

            async def end_with_the_host() -> None:
                await output.broken.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(end_with_the_host)
            await bridge(locate, receive, output.write, look=look, drain_s=drain_s, log=log)
            tasks.cancel_scope.cancel()


def _lines(descriptor: int) -> Iterator[bytes]:
    pieces = bytearray()
    while chunk := os.read(descriptor, _READ):
        pieces += chunk
        if b"\n" in chunk:
            *whole, rest = bytes(pieces).split(b"\n")
            pieces = bytearray(rest)
            yield from whole
    if pieces:
        yield bytes(pieces)


class _Output:
    """Writes lines from a thread of its own: a host that does not read for a while must not keep us from reading it.

    A host that writes a long message, and reads nothing until it is through, would otherwise wait for us for ever, and
    we for it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._token = anyio.lowlevel.current_token()
        self._lines: queue.SimpleQueue[tuple[bytes, anyio.Event]] = queue.SimpleQueue()
        self.broken = anyio.Event()
        """Set when nobody reads any more."""
        threading.Thread(target=self._run, daemon=True, name="stdout").start()

    async def write(self, line: bytes) -> None:
        """Write one line; returns when the host's pipe has taken it. Who is cancelled meanwhile leaves it whole."""
        written = anyio.Event()
        self._lines.put((line, written))
        await written.wait()

    def _run(self) -> None:
        try:
            while True:
                line, written = self._lines.get()
                rest = memoryview(line + b"\n")
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                anyio.from_thread.run_sync(written.set, token=self._token)
        except OSError:
            with suppress(RuntimeError):
                anyio.from_thread.run_sync(self.broken.set, token=self._token)
        except RuntimeError:
            return  # the loop is gone
