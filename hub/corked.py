"""HTTP on the server's side with one send for a response that is there at once: its head waits for its body.

uvicorn sends head and body apart, which is two calls of the kernel and two packets for every small answer.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from interhub.adapters.outbox import Outbox, outbox_of


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, over a transport that gathers what is written in one turn of the loop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Take a connection."""
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", Corked(transport, outbox_of(self.loop)))


class Corked:
    """The part of a transport that uvicorn's request cycle uses."""

    __slots__ = ("_outbox", "_transport")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, with whatever else is written before the loop goes on."""
        self._outbox.write(self._transport, data)

    def close(self) -> None:
        """Close, once everything is sent."""
        self._outbox.flush(self._transport)
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._transport.is_closing()
