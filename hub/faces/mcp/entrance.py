"""The entrance of an MCP endpoint: each body is read once, and what can be answered at once is, past the SDK's server.

A request takes the short way only where everything about it is in order and nothing about it is special. Whatever is
not goes on to the SDK, which says in its own words what is wrong: the short way never words an error. It falls back
request by request, also in the middle of one: a call that has begun, and turns out to need a stream, a question or
time, is handed over as it stands.

There are two ways in: as an ASGI application, and past ASGI (`McpEntrance.short`, `interhub.hub.wire`). Both have the
same shortcuts.
"""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack

import anyio
import orjson
import structlog
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interhub.adapters.mcp.relay import Begun
from interhub.hub.faces.http import RECORDED, replay
from interhub.hub.wire import LEFT, Answer, Around, Exchange, Going

from .inbound import SESSION, Caller, Inbound, Shortcut, Underway, headers_of, inbound_of

log = structlog.get_logger()

PATIENCE_S = 0.5
"""How long the entrance waits for an answer. After that the long way does, which notices a client that hangs up and
keeps its connection alive; what it costs is nothing beside the wait."""
_CANCELLED = b"notifications/cancelled"
_HAND_OVER_S = 1.0

_Carried = dict[tuple[str, int | str], Begun]
"""What is waited for of legacy requests, by session and id."""


class McpEntrance:
    """An ASGI application in front of another that speaks MCP in full (`app`), with shortcuts by method.

    `security` checks Host and Origin for a face that stands alone, as it does behind it.
    """

    def __init__(
        self,
        app: ASGIApp,
        shortcuts: Mapping[str, Shortcut],
        *,
        max_body_bytes: int,
        security: TransportSecuritySettings | None = None,
    ) -> None:
        self._app = app
        self._shortcuts = shortcuts
        self._max_body_bytes = max_body_bytes
        self._carried: _Carried = {}
        self._security = TransportSecurityMiddleware(security) if security is not None else None

    # As an ASGI application

    async def __call__(self, scope: Scope, receive: Receive, send: Send, caller: Caller | None = None) -> None:
        """Serve one request of `caller`; without one, what it is of is in `scope["state"]` and its path parameters."""
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        left: Around | None = scope["state"].pop(LEFT, None)
        if left is not None:
            await self._take_over(left, scope, receive, send)
            return
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] != "http.request" or message.get("more_body", False):
            read = await self._read(message, receive)
            if read[-1]["type"] != "http.request" or read[-1].get("more_body", False):
                await self._app(scope, replay(read, receive), send)
                return
            body = b"".join([each["body"] for each in read])
            message = {"type": "http.request", "body": body, "more_body": False}
        headers = headers_of(scope)
        who = caller or Caller(scope["state"]["principal"], scope["path_params"]["agent_id"])
        inbound = inbound_of(who, headers, body) if headers is not None else None
        receive = replay([message], receive)
        if inbound is None:
            if self._carried and _CANCELLED in body:
                await self._hand_over(scope, body)
        elif self._security is None or await self._is_welcome(scope):
            result = self._begin(inbound)
            if isinstance(result, Underway):
                underway = result
                result = await self._carry(underway)
                if result is None:
                    await self._take_over(underway.leave(), scope, receive, send)
                    return
                scope["state"][RECORDED] = underway.ticket is not None
            if result is not None:
                await _send(inbound, result, send)
                return
        await self._app(scope, receive, send)

    def _begin(self, inbound: Inbound) -> bytes | Underway | None:
        shortcut = self._shortcuts.get(inbound.method)
        if shortcut is None:
            return None
        try:
            return shortcut(inbound)
        except Exception:  # a fault of the short way; the long one may well do
            log.exception("short_way_failed", method=inbound.method)
            return None

    async def _carry(self, underway: Underway) -> bytes | None:
        """Wait for a result; None when it is for the long way to wait, or to say what went wrong."""
        with _Noted(self._carried, underway):
            try:
                return underway.answer() if await underway.begun.settled(PATIENCE_S) else None
            except BaseException:
                underway.give_up()
                raise

    async def _take_over(self, left: Around, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as stack:
            for each in left:
                stack.enter_context(each)
            await self._app(scope, receive, send)

    async def _read(self, first: Message, receive: Receive) -> list[Message]:
        """Return the messages of a body that comes in pieces: all of them, or as far as it may be read."""
        read = [first]
        size = len(first.get("body", b""))
        while read[-1]["type"] == "http.request" and read[-1].get("more_body", False) and size <= self._max_body_bytes:
            read.append(await receive())
            size += len(read[-1].get("body", b""))
        return read

    async def _hand_over(self, scope: Scope, body: bytes) -> None:
        """Have the SDK's server take over the call that a legacy client cancels: it is to hear the notification."""
        named = [value for name, value in scope["headers"] if name == SESSION]
        try:
            number = orjson.loads(body)["params"]["requestId"]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            return  # the SDK says what is wrong
        if len(named) != 1 or type(number) not in (int, str):
            return
        begun = self._carried.get((named[0].strip(b" \t").decode("latin-1"), number))
        if begun is not None:
            with anyio.move_on_after(_HAND_OVER_S):
                await begun.hurry().wait()

    async def _is_welcome(self, scope: Scope) -> bool:
        assert self._security is not None, "asked where there is something to check"
        return await self._security.validate_request(Request(scope), is_post=True) is None

    # Past ASGI

    def short(
        self, caller: Caller, headers: Mapping[bytes, bytes], body: bytes, fields: bytes
    ) -> Answer | Going | None:
        """Answer a request, or send it on its way; `fields` are header lines for its answer (`wire.ShortWay`)."""
        if self._security is not None:
            return None
        inbound = inbound_of(caller, headers, body)
        if inbound is None:
            return None
        found = self._begin(inbound)
        if isinstance(found, Underway):
            return _Followed(self._carried, found, fields)
        return _answer(inbound, found, fields) if found is not None else None


class _Followed:
    """A request that is carried to its end by callbacks (`wire.Going`)."""

    __slots__ = ("_carried", "_exchange", "_fields", "_noted", "_task", "_timer", "_underway")

    def __init__(self, carried: _Carried, underway: Underway, fields: bytes) -> None:
        self._underway = underway
        self._fields = fields
        self._noted = None if underway.inbound.modern else _Noted(carried, underway)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, exchange: Exchange) -> None:
        """Carry it to its end."""
        self._exchange = exchange
        if self._noted is not None:
            self._noted.__enter__()
        self._timer = exchange.loop.call_later(PATIENCE_S, self._late)
        if not self._underway.begun.watch(self._news):
            self._wait()

    def give_up(self) -> None:
        """Let go of it: the client has hung up."""
        self._end_wait()
        self._underway.give_up()

    def _news(self) -> None:
        begun = self._underway.begun
        settled = begun.look()
        if settled is not None:
            self._end(settled=settled)
        elif not begun.watch(self._news):
            self._wait()

    def _late(self) -> None:
        self._end(settled=False)

    def _wait(self) -> None:
        """Wait in a task: a connection is to be made."""
        self._task = self._exchange.loop.create_task(self._settle(), context=self._exchange.context)

    async def _settle(self) -> None:
        self._end(settled=await self._underway.begun.settled(PATIENCE_S))

    def _end(self, *, settled: bool) -> None:
        self._end_wait()
        shown = None
        if settled:
            try:
                shown = self._underway.answer()
            except Exception:  # whoever called this back, the connection to the server, is not to suffer from it
                log.exception("short_way_failed", method=self._underway.inbound.method)
        if shown is None:
            self._exchange.leave(self._underway.leave())
        else:
            self._exchange.answer(_answer(self._underway.inbound, shown, self._fields))

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._underway.begun.watch(None)
        if self._noted is not None:
            self._noted.__exit__()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task(self._exchange.loop):
            task.cancel()


class _Noted:
    """Notes a legacy request, while it is waited for, where its cancellation looks for it."""

    __slots__ = ("_carried", "_key", "_underway")

    def __init__(self, carried: _Carried, underway: Underway) -> None:
        self._carried = carried
        self._underway = underway
        self._key = underway.inbound.session_id, underway.inbound.id

    def __enter__(self) -> None:
        if not self._underway.inbound.modern:
            self._carried[self._key] = self._underway.begun

    def __exit__(self, *raised: object) -> None:
        self._carried.pop(self._key, None)


_TYPE = b"content-type: application/json\r\n"


def _answer(inbound: Inbound, result: bytes, fields: bytes) -> Answer:
    if inbound.modern:
        return Answer(_TYPE + fields, _response(inbound, result))
    session = b"%b: %b\r\n" % (SESSION, inbound.session_id.encode("latin-1"))
    return Answer(_TYPE + session + fields, _response(inbound, result))


def _response(inbound: Inbound, result: bytes) -> bytes:
    number = inbound.id
    said = str(number).encode() if isinstance(number, int) else orjson.dumps(number)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (said, result)


async def _send(inbound: Inbound, result: bytes, send: Send) -> None:
    body = _response(inbound, result)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if not inbound.modern:
        headers.append((SESSION, inbound.session_id.encode("latin-1")))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
