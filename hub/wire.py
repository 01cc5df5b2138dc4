"""Requests answered past ASGI: what is whole and plain is offered to a short way before it becomes a scope and a task.

For an answer that is there at once, or comes by one callback, uvicorn's parser, scope, task and four coroutines cost as
much as all that the hub does about a proxied call (docs/adr/0009). So a request that came in one piece is looked at
here; whatever is not plain about it, or turns out not to be, is fed to uvicorn as it came.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import structlog
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from .corked import CorkedProtocol

log = structlog.get_logger()

LEFT = "left"
"""Key of a request's state: the contexts to be entered around it, of a request that a short way has left."""

Around: TypeAlias = tuple[AbstractContextManager[None], ...]


class Request(NamedTuple):
    """A POST that came whole, in one piece, with nothing special about its head. No header came twice."""

    path: str
    query: bytes
    headers: dict[bytes, bytes]
    """By lower-case name, without the blanks around."""
    body: bytes


class Answer(NamedTuple):
    """A response of status 200."""

    fields: bytes
    """Its header lines, each with its end; without the length."""
    body: bytes


class Exchange(Protocol):
    """What a request that is on its way ends with: one of these, once."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it is served in."""
        ...

    @property
    def context(self) -> Context:
        """A context of the connection alone, for what is begun for it."""
        ...

    def answer(self, answer: Answer) -> None:
        """Answer it."""
        ...

    def leave(self, around: Around) -> None:
        """Leave it to the application, which finds `around` in its state (`LEFT`)."""
        ...


class Going(Protocol):
    """A request that is on its way to its answer."""

    def follow(self, exchange: Exchange) -> None:
        """Carry it to its end."""
        ...

    def give_up(self) -> None:
        """Let go of it: the client has hung up. It does not end any more."""
        ...


ShortWay: TypeAlias = Callable[[Request], Answer | Going | None]
"""Answers a request, sends it on its way, or leaves it (None) to the application, which is then offered it as it came.

It raises nothing, and words no refusal.
"""


class Served(NamedTuple):
    """What a server serves."""

    app: ASGIApp
    short_way: ShortWay


_MOST_LATER = 256 * 1024


class ShortProtocol(CorkedProtocol):
    """uvicorn's protocol, with a short way before it."""

    def __init__(self, *given: Any, short_way: ShortWay, **named: Any) -> None:
        super().__init__(*given, **named)
        self._short_way = short_way
        self._context = copy_context()
        self._between = True
        """The parser stands between two requests."""
        self._going: Going | None = None
        self._data = b""
        """The request that is going, as it came."""
        self._later: list[bytes] = []
        self._held_back = False
        self._reader = Reader()
        self._left: Around = ()
        self._ending = False
        self._answered_at = 0.0

    @property
    def context(self) -> Context:
        """A context of the connection alone."""
        return self._context.copy()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        if self._going is not None or self._later:
            self._keep_for_later(data)
            return
        if self._between and not self.pipeline and not self.flow.write_paused and self._is_answered():
            request = self._reader.read(data)
            if request is not None and self._goes_short(request, data):
                return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what is on its way."""
        going, self._going = self._going, None
        self._later.clear()
        if going is not None:
            going.give_up()
        super().connection_lost(exc)

    # uvicorn's protocol

    def shutdown(self) -> None:
        """End the connection after what is on its way."""
        if self._going is not None:
            self._ending = True
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Take note that a request goes through the parser."""
        self._between = False
        super().on_message_begin()
        if self._left:
            self.scope.setdefault("state", {})[LEFT], self._left = self._left, ()

    def on_message_complete(self) -> None:
        """Take note that a request is through the parser."""
        self._between = True
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has not been used; short answers do not set the timer anew each time."""
        self.timeout_keep_alive_task = None
        idle_s = 0.0 if self._going is not None else self.loop.time() - self._answered_at
        if idle_s >= self.timeout_keep_alive:
            super().timeout_keep_alive_handler()
        else:
            self._keep_alive(self.timeout_keep_alive - idle_s)

    # Exchange

    def answer(self, answer: Answer) -> None:
        """Answer what came."""
        self._going = None
        self.server_state.total_requests += 1
        fields, body = answer
        head = _head(self.server_state.default_headers)
        self.transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (head, fields, len(body), body))
        self._answered_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive(self.timeout_keep_alive)
        if self._ending:
            self.transport.close()
        elif self._later:
            self._go_on()

    def leave(self, around: Around) -> None:
        """Feed what came to uvicorn."""
        self._going = None
        self._left = around
        self.context.run(super().data_received, self._data)
        self._data = b""
        if self._ending:
            super().shutdown()
        self._go_on()

    def _is_answered(self) -> bool:
        # Before the first request there is none, whatever uvicorn's annotation says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def _goes_short(self, request: Request, data: bytes) -> bool:
        try:
            found = self._short_way(request)
        except Exception:  # a fault of the short way; the long one may well do
            log.exception("short_way_failed", path=request.path)
            return False
        if found is None:
            return False
        if isinstance(found, Answer):
            self.answer(found)
        else:
            self._data = data
            self._going = found
            found.follow(self)
        return True

    def _keep_alive(self, for_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(for_s, self.timeout_keep_alive_handler)

    def _keep_for_later(self, data: bytes) -> None:
        self._later.append(data)
        if not self._held_back and sum(map(len, self._later)) > _MOST_LATER:
            self._held_back = True
            self.flow.pause_reading()

    def _go_on(self) -> None:
        if self._later:
            self.loop.call_soon(self._take_later)

    def _take_later(self) -> None:
        later, self._later = self._later, []
        if self._held_back:
            self._held_back = False
            self.flow.resume_reading()
        if later:
            self.data_received(b"".join(later))


class _Status:
    """The status line and the headers that uvicorn adds to every response, written once a second."""

    of: Sequence[tuple[bytes, bytes]] = ()
    lines = b"HTTP/1.1 200 OK\r\n"


def _head(defaults: Sequence[tuple[bytes, bytes]]) -> bytes:
    if defaults is not _Status.of:
        _Status.of = defaults
        _Status.lines = b"HTTP/1.1 200 OK\r\n" + b"".join([b"%b: %b\r\n" % each for each in defaults])
    return _Status.lines


# Reading

_TARGET = re.compile(rb"POST (/[A-Za-z0-9/._~-]*)(?:\?([\x21-\x22\x24-\x7e]*))? HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"http2-settings"})
_UNKEPT = frozenset(
    {b"authorization", b"x-api-key", b"cookie", b"traceparent", b"tracestate", b"baggage", b"x-request-id"}
)
"""Headers whose lines are not remembered: they are secret, or another in each request."""
_LONGEST_KEPT = 256
_MOST_KEPT = 4096
_fields: dict[bytes, tuple[bytes, bytes]] = {}


class _Head(NamedTuple):
    """The head of a request whose body has a length."""

    written: bytes
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    length: int
    """Of the body, in bytes."""


class Reader:
    """Reads the requests of one connection. It remembers the last head: most clients send the same again and again."""

    __slots__ = ("_head",)

    def __init__(self) -> None:
        self._head: _Head | None = None

    def read(self, data: bytes) -> Request | None:
        """Read a request; None where it is not whole, or anything about its head is special (RFC 9112)."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        written, head = data[:end], self._head
        if head is None or written != head.written:
            head = _read_head(written)
            if head is None:
                return None
            self._head = head
        _, path, query, headers, length = head
        return Request(path, query, headers, data[end + 4 :]) if len(data) == end + 4 + length else None


def _read_head(written: bytes) -> _Head | None:
    lines = written.split(b"\r\n")
    target = _target(lines[0])
    if target is None:
        return None
    del lines[0]
    headers: dict[bytes, bytes] = {}
    for line in lines:
        field = _fields.get(line) or _field(line)
        if field is None:
            return None
        headers[field[0]] = field[1]
    length = headers.get(b"content-length", b"")
    if len(headers) != len(lines) or not length.isdigit() or len(length) > 9 or not _SPECIAL.isdisjoint(headers):
        return None
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return _Head(written, *target, headers, int(length))


@lru_cache(maxsize=1024)
def _target(line: bytes) -> tuple[str, bytes] | None:
    found = _TARGET.fullmatch(line)
    return (found[1].decode("ascii"), found[2] or b"") if found is not None else None


def _field(line: bytes) -> tuple[bytes, bytes] | None:
    found = _FIELD.fullmatch(line)
    if found is None:
        return None
    field = found[1].lower(), found[2].strip(b" \t")
    if field[0] not in _UNKEPT and len(line) <= _LONGEST_KEPT:
        if len(_fields) >= _MOST_KEPT:
            _fields.clear()
        _fields[line] = field
    return field
