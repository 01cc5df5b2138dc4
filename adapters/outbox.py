"""What is sent in one turn of an event loop, sent together.

uvloop sends what is written at once. A server of many connections then wakes its idle peers, one by one, for each small
thing that it says, which costs a multiple of the saying; said one after the other, most find their peer awake
(docs/adr/0009). And the pieces of a message that are written apart go out as one.
"""

import asyncio
from functools import lru_cache
from typing import Final

MOST: Final = 64
"""How many connections are written to together: the first of them waits for what is done for the others."""


class Outbox:
    """Keeps what is written to transports until the loop has seen to all that had come, or `MOST` have something."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[asyncio.WriteTransport, list[bytes]] = {}

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Send soon, after what was written to the transport before."""
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self._flush)
        chunks = waiting.get(transport)
        if chunks is not None:
            chunks.append(data)
            return
        waiting[transport] = [data]
        if len(waiting) >= MOST:
            self._flush()

    def flush(self, transport: asyncio.WriteTransport) -> None:
        """Send what waits for one transport."""
        chunks = self._waiting.pop(transport, None)
        if chunks is not None:
            _send(transport, chunks)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for transport, chunks in waiting.items():
            _send(transport, chunks)


def _send(transport: asyncio.WriteTransport, chunks: list[bytes]) -> None:
    if not transport.is_closing():  # a closed one of uvloop's would raise, and keep the others from being sent
        transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))


@lru_cache(maxsize=1)
def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """Return the outbox of a loop; whoever writes to a connection keeps to the one that it was given."""
    return Outbox(loop)
