"""HTTP/1.1 to one origin over connections that are kept: as little around a POST as the hot path can do with.

The general clients (`egress`, the SDKs' own) do more and cost more; docs/adr/0009-mcp-fast-path.md has the figures.
No redirect is followed, no cookie kept, no proxy used, nothing unpacked (`Accept-Encoding: identity` is asked for). A
response is read while it comes; whoever waits for it is woken when it is whole or, of a stream, when there is more.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import httptools

from .keepalive import KEEPALIVE
from .outbox import outbox_of

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Most that one response may hold before it is cut off."""
MAX_HEAD_BYTES = 64 * 1024
CONNECT_S = 10.0
KEEP_S = 4.0
"""How long an unused connection is kept. Servers close theirs after 5 s (uvicorn, Node); a request on its way then is
lost, and may be repeated only where it is harmless."""
MAX_IDLE = 256
LEAVE_S = 2.0
"""How long the end of a stream whose answer has come is waited for."""
_HIGH_WATER = 1024 * 1024
_ENDS_A_HEADER = re.compile(rb"[\r\n\0]")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host that may be connected to. Raises OSError when there is none."""


def holds(name: bytes, value: bytes) -> bool:
    """Whether a header can be written: nothing in it ends it and begins another (RFC 9110, section 5.5)."""
    return _ENDS_A_HEADER.search(name) is None and _ENDS_A_HEADER.search(value) is None


class HttpFault(Exception):
    """No whole response came."""


class NotConnected(HttpFault):
    """No connection could be made: nothing was sent."""


class BrokenOff(HttpFault):
    """The connection ended before the response did."""


class TooLarge(HttpFault):
    """The response was cut off, because it is larger than what is taken."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a pool connects to."""

    host: str
    port: int
    tls: bool


class Response:
    """What has come back for a request so far. Waited for by one task."""

    __slots__ = (
        "_chunks", "_connection", "_listener", "_loop", "_news", "_size", "_waiter", "any_byte", "ended", "fault",
        "headers", "max_bytes", "reused", "status", "streams",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, *, max_bytes: int) -> None:
        self.status = 0
        """0 until the head has come."""
        self.headers: dict[bytes, bytes] = {}
        """By lower-case name; of a name that came twice, the last."""
        self.streams = False
        """It is an event stream: `changed` returns with each piece of it."""
        self.ended = False
        """Nothing more will come: it is whole, or `fault` says why it is not."""
        self.fault: HttpFault | None = None
        self.any_byte = False
        """Something came: the server has seen the request."""
        self.reused = False
        """It went out on a connection that had been used before, which the server may just have closed."""
        self.max_bytes = max_bytes
        self._loop = loop
        self._chunks: list[bytes] = []
        self._size = 0
        self._news = False
        self._waiter: asyncio.Future[bool] | None = None
        self._listener: Callable[[], None] | None = None
        self._connection: _Connection | None = None

    async def changed(self, timeout_s: float) -> bool:
        """Wait until it has ended, or there is more of a stream; False when the time was up first."""
        if not self._news:
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, _give_up, waiter)
            try:
                if not await waiter:
                    return False
            finally:
                timer.cancel()
                self._waiter = None
        self.noticed()
        return True

    def noticed(self) -> None:
        """Take what has come so far for known."""
        self._news = self.ended

    def watch(self, listener: Callable[[], None] | None) -> None:
        """Have a listener called, once, where `changed` would return; None takes it back. It raises nothing."""
        self._listener = listener
        if self._news:
            self._call_listener()

    def hurry(self) -> None:
        """Have `changed` return, or the listener called, now, as if the time were up."""
        if self._waiter is not None:
            _give_up(self._waiter)
        self._call_listener()

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        chunks = self._chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        if self._connection is not None:
            self._connection.read_on()
        return taken

    def abandon(self) -> None:
        """Close the connection, because nobody wants the rest; nothing happens where it has ended."""
        if not self.ended:
            self.end(BrokenOff("the request was given up"))

    def leave(self) -> None:
        """Let what is left of a stream come and be dropped, so that its connection can be used again."""
        if not self.ended:
            self.streams = False
            self._chunks = _Dropped()
            self._loop.call_later(LEAVE_S, self.abandon)

    # For the connection

    def belongs_to(self, connection: "_Connection") -> None:
        """Note on which connection it comes."""
        self._connection = connection

    def begin(self, status: int) -> None:
        """Note that its head is there."""
        self.status = status
        self.streams = self.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        if self.streams:
            self._wake()

    def add(self, chunk: bytes) -> bool:
        """Take a piece of the body; False when it is time to read no further until it is taken."""
        if self.ended:
            return True
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self.max_bytes:
            self.end(TooLarge(f"more than {self.max_bytes} bytes"))
            return True
        if not self.streams:
            return True
        self._wake()
        return sum(map(len, self._chunks)) < _HIGH_WATER

    def end(self, fault: HttpFault | None) -> None:
        """Note that nothing more will come."""
        if self.ended:
            return
        self.ended, self.fault = True, fault
        connection, self._connection = self._connection, None
        if connection is not None and fault is not None:
            connection.close()
        self._wake()

    def _wake(self) -> None:
        self._news = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)
        self._call_listener()

    def _call_listener(self) -> None:
        listener = self._listener
        if listener is not None:
            self._listener = None
            listener()


class _Dropped(list[bytes]):
    def append(self, item: bytes) -> None:
        pass


def _give_up(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)


class Http1Pool:
    """Connections to one origin. `close` it when it is no longer used."""

    def __init__(
        self,
        origin: Origin,
        *,
        tls: Callable[[], ssl.SSLContext],
        resolve: Resolve | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        connect_s: float = CONNECT_S,
        keep_s: float = KEEP_S,
    ) -> None:
        """`tls` returns the process's context, and is asked when the first connection needs it."""
        self.origin = origin
        self._tls = tls
        self._resolve = resolve
        self._max_body_bytes = max_body_bytes
        self._connect_s = connect_s
        self._keep_s = keep_s
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def send(self, request: bytes) -> Response | None:
        """Send a request, head and body, on a connection that is kept; None where there is none."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable:
                response = Response(connection.loop, max_bytes=self._max_body_bytes)
                response.reused = True
                connection.send(request, response)
                return response
        return None

    async def connect_and_send(self, request: bytes) -> Response:
        """Send a request on a new connection.

        Raises:
            NotConnected: there is none to be had.
        """
        connection = await self._connect()
        response = Response(connection.loop, max_bytes=self._max_body_bytes)
        connection.send(request, response)
        return response

    def close(self) -> None:
        """Close all connections; responses that are still coming end there."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    async def _connect(self) -> "_Connection":
        if self._closed:
            raise NotConnected("the connection was closed")
        origin = self.origin
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                addresses = [origin.host] if self._resolve is None else await self._resolve(origin.host, origin.port)
                return await self._connect_first(loop, addresses)
        except TimeoutError:
            raise NotConnected(f"no connection within {self._connect_s:g} s") from None
        except (OSError, ssl.SSLError) as error:
            raise NotConnected(str(error) or type(error).__name__) from error

    async def _connect_first(self, loop: asyncio.AbstractEventLoop, addresses: Sequence[str]) -> "_Connection":
        failure: OSError | None = None
        for address in addresses:
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, loop),
                    address,
                    self.origin.port,
                    ssl=self._tls() if self.origin.tls else None,
                    server_hostname=self.origin.host if self.origin.tls else None,
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = failure or error
            else:
                return connection
        raise failure or OSError(f"{self.origin.host} has no address")

    # For the connections

    def opened(self, connection: "_Connection") -> None:
        """Count a connection in."""
        self._open.add(connection)
        if self._closed:
            connection.close()

    def lost(self, connection: "_Connection") -> None:
        """Count a connection out."""
        self._open.discard(connection)

    def give_back(self, connection: "_Connection") -> None:
        """Keep a connection whose response is whole."""
        if self._closed or len(self._idle) >= MAX_IDLE:
            connection.close()
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(self._keep_s, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_s
        # Those at the left were used longest ago: the newest is taken first.
        while self._idle and (self._idle[0].used_at <= oldest or not self._idle[0].usable):
            self._idle.popleft().close()
        if self._idle:
            wait_s = max(0.1, self._idle[0].used_at + self._keep_s - loop.time())
            self._sweep = loop.call_later(wait_s, self._close_idle)


class _Connection(asyncio.Protocol):
    """One connection, with at most one response on its way."""

    __slots__ = (
        "_head_bytes", "_outbox", "_parser", "_paused", "_pool", "_response", "_transport", "_until_end", "loop",
        "used_at",
    )  # fmt: skip

    def __init__(self, pool: Http1Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.used_at = 0.0
        self._pool = pool
        self._outbox = outbox_of(loop)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._head_bytes = 0
        self._until_end = False
        self._paused = False

    @property
    def usable(self) -> bool:
        """Whether a request may be sent on it."""
        transport = self._transport
        return transport is not None and self._response is None and not transport.is_closing()

    def send(self, request: bytes, response: Response) -> None:
        """Send a request."""
        assert self._transport is not None, "a connection that is handed out is connected"
        self._response = response
        self._head_bytes = 0
        self._until_end = False
        response.belongs_to(self)
        self._outbox.write(self._transport, request)

    def read_on(self) -> None:
        """Read again, after a pause."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close it now."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        with suppress(OSError):  # it is closed already, and says so next
            for option in KEEPALIVE:
                transport.get_extra_info("socket").setsockopt(*option)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.close()  # it says something unasked: nothing that follows could be told apart from an answer
            return
        response.any_byte = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            why = "it switches protocols" if isinstance(error, httptools.HttpParserUpgrade) else str(error)
            response.end(BrokenOff(f"its answer is not HTTP: {why}"))
            self._response = None
            self.close()

    def eof_received(self) -> bool:
        if self._response is not None and self._until_end:
            self._finish(keep=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.lost(self)
        response, self._response = self._response, None
        if response is not None and self._until_end and exc is None:
            response.end(None)
        elif response is not None:
            response.end(BrokenOff(str(exc) if exc is not None else "the server closed the connection"))

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("its head is too large")
        if self._response is not None:
            self._response.headers[name.lower()] = value.strip(b" \t")

    def on_headers_complete(self) -> None:
        """Take note of the end of the head."""
        status = self._parser.get_status_code()
        response = self._response
        if response is None or status < 200:
            return
        headers = response.headers
        self._until_end = b"content-length" not in headers and b"chunked" not in headers.get(b"transfer-encoding", b"")
        response.begin(status)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._response is not None and not self._response.add(body) and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Take note of the end of the body."""
        response = self._response
        if response is None:
            return
        if response.status == 0:  # an interim response (RFC 9110, section 15.2)
            response.headers.clear()
            return
        self._finish(keep=self._parser.should_keep_alive())

    def _finish(self, *, keep: bool) -> None:
        response, self._response = self._response, None
        if self._paused:
            self.read_on()
        if keep and self._transport is not None and not self._transport.is_closing():
            self.used_at = self.loop.time()
            self._pool.give_back(self)
        else:
            self.close()
        if response is not None:
            response.end(None)
