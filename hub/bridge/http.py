"""The little HTTP that the bridge needs: one request on one connection, its answer whole or as server-sent events.

Nothing is pooled: a connection to this machine costs a fraction of a millisecond, and the libraries that pool cost a
tenth of a second to import, which is what somebody waits for when a host starts the bridge.
"""

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import anyio
import anyio.abc
import h11

CONNECT_TIMEOUT_S = 5.0
_READ = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the hub is, and the key to it."""

    url: str
    """The MCP endpoint, with its path."""
    key: str


class HubGone(Exception):
    """The hub could not be reached, or broke off."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent
        """True when it may have begun to carry out the request."""


class Answer:
    """The answer to one request: its head; the body is still to be read."""

    def __init__(self, stream: anyio.abc.ByteStream, connection: h11.Connection, head: h11.Response) -> None:
        self._stream = stream
        self._connection = connection
        self.status = head.status_code
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.headers
        }

    @property
    def is_stream(self) -> bool:
        """True when the body is server-sent events."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            HubGone: it broke off.
        """
        return b"".join([chunk async for chunk in self._chunks()])

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the data of each event; what an event is called does not matter to MCP.

        Raises:
            HubGone: it broke off.
        """
        tail = bytearray()
        data: list[bytes] = []
        async for chunk in self._chunks():
            tail += chunk
            if b"\n" not in chunk:
                continue
            *lines, rest = bytes(tail).split(b"\n")
            tail = bytearray(rest)
            for line in lines:
                line = line.removesuffix(b"\r")
                if line.startswith(b"data:"):
                    data.append(line[5:].removeprefix(b" "))
                elif not line and data:
                    yield b"\n".join(data)
                    data = []

    async def messages(self) -> AsyncGenerator[bytes]:
        """Yield the messages in it, whichever way it comes.

        Raises:
            HubGone: it broke off.
        """
        if self.is_stream:
            async for data in self.events():
                yield data
        elif body := await self.body():
            yield body

    async def _chunks(self) -> AsyncGenerator[bytes]:
        while True:
            event = await _next(self._stream, self._connection)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return


@asynccontextmanager
async def exchange(
    address: Address, method: str, headers: Mapping[str, str], body: bytes = b""
) -> AsyncGenerator[Answer]:
    """Send one request and give the head of its answer; the connection is closed when the block is left.

    Raises:
        HubGone: it could not be reached, or broke off before it answered.
    """
    url = urlsplit(address.url)
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            stream = await _open(host, port, secure=url.scheme == "https")
    except (OSError, TimeoutError) as error:
        why = str(error) or "it does not answer"
        raise HubGone(f"{host}:{port}: {why}; is it running? `interhub serve` starts one", sent=False) from error
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        head = {
            "host": url.netloc.rpartition("@")[2],
            "authorization": f"Bearer {address.key}",
            "connection": "close",
            "content-length": str(len(body)),
            **headers,
        }
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        request = h11.Request(method=method, target=target, headers=list(head.items()))
        sending = connection.send(request) or b""
        sending += connection.send(h11.Data(data=body)) or b""
        connection.send(h11.EndOfMessage())
        try:
            # A hub that refuses a body by its size answers, and closes, before all of it is sent.
            with suppress(anyio.BrokenResourceError):
                await stream.send(sending)
            while not isinstance(event := await _next(stream, connection), h11.Response):
                if isinstance(event, h11.ConnectionClosed | h11.EndOfMessage):
                    raise HubGone("it closed the connection without an answer", sent=True)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise HubGone("it closed the connection", sent=True) from error
        yield Answer(stream, connection, event)


async def _open(host: str, port: int, *, secure: bool) -> anyio.abc.ByteStream:
    if secure:
        return await anyio.connect_tcp(host, port, ssl_context=_trusted(), tls_standard_compatible=False)
    return await anyio.connect_tcp(host, port)


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()  # 20 ms: the system's certificates are read once


async def _next(stream: anyio.abc.ByteStream, connection: h11.Connection) -> h11.Event:
    """Return the next event of the answer.

    Raises:
        HubGone: the connection broke.
    """
    while True:
        try:
            event = connection.next_event()
            if isinstance(event, h11.Event):
                return event
            connection.receive_data(await _receive(stream))
        except (h11.RemoteProtocolError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise HubGone("it broke off", sent=True) from error


async def _receive(stream: anyio.abc.ByteStream) -> bytes:
    try:
        return await stream.receive(_READ)
    except anyio.EndOfStream:
        return b""
