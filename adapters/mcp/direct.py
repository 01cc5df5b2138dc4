"""A request that goes past the SDK's client, on a connection of our own: the hot path of a proxied call.

Most answers are one JSON object that comes soon. That is all that is handled here at speed (`DirectExchange.settled`).
Whatever else happens on the way, a stream with notifications, a question, a long wait, is for the caller to take over
with everything that the slow path can do: it hands the exchange to the session's next request (`handing_over`), which
then follows the one that has begun instead of sending another.
"""

import re
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, cast

import anyio
import httpx2
from mcp import MCPError
from mcp_types import INTERNAL_ERROR
from pydantic_core import from_json

from interhub.adapters.addresses import Reach
from interhub.adapters.egress import USER_AGENT, tls_context
from interhub.adapters.errors import AdapterError, ProtocolViolation, RemoteUnavailable
from interhub.adapters.exact_json import read_json, write_json
from interhub.adapters.http1 import BrokenOff, Http1Pool, HttpFault, NotConnected, Origin, Response, TooLarge
from interhub.agent_cards import Binding, Endpoint, JsonObject

from .http import MAX_BODY_BYTES, SILENCE_S, Sink, fault_of, place, wrong_answer
from .network import resolver
from .relay import Begun, SessionGone

RESUME_S = 1.0
"""How long after a stream broke off the rest of it is asked for, where the server does not say."""
MOST_RESUMES = 8
_CANCEL_S = 2.0
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_HOP = frozenset({"content-length", "transfer-encoding", "connection", "host", "accept-encoding"})

Heard = Callable[[str, JsonObject], Awaitable[None]]
"""Takes a notification that belongs to no request."""
Notice = Callable[[str, JsonObject], Awaitable[None]]
"""Sends the server a notification."""


class DirectWay:
    """Where a session's requests go when they go directly."""

    def __init__(self, url: str, headers: Mapping[str, str], pool: Http1Pool) -> None:
        parsed = httpx2.URL(url)
        self.pool = pool
        self.place = place(parsed)
        self.session_id = ""
        """The session's id, of the legacy era, once the server has given one."""
        self.blocked = False
        """The server does what is not done on this way, such as redirect."""
        fields = {
            "User-Agent": USER_AGENT,
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        given = {name.lower() for name in headers}
        lines = [f"{name}: {value}" for name, value in fields.items() if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in _HOP]
        target = parsed.raw_path.decode("ascii")
        common = "\r\n".join([f"Host: {parsed.netloc.decode('ascii')}", *lines, ""])
        self._post = f"POST {target} HTTP/1.1\r\n{common}".encode("ascii")
        self._get = f"GET {target} HTTP/1.1\r\n{common}".encode("ascii")

    def use_session(self, session_id: str) -> None:
        """Take note of the session's id."""
        self.session_id = session_id

    def post(self, fields: bytes, body: bytes) -> bytes:
        """Return a POST as it goes out; `fields` are header lines."""
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._post, fields, len(body), body)

    def get(self, fields: bytes) -> bytes:
        """Return a GET as it goes out."""
        return b"%b%b\r\n" % (self._get, fields)


def pool_for(endpoint: Endpoint, reach: Reach) -> Http1Pool | None:
    """Return a pool for a server's origin, at addresses within `reach`.

    None where it is not reached over streamable HTTP, or its URL is none.
    """
    if endpoint.binding is not Binding.MCP_HTTP:
        return None
    try:
        parsed = httpx2.URL(endpoint.url)
    except httpx2.InvalidURL:
        return None  # whoever connects says so
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.userinfo:
        return None
    tls = parsed.scheme == "https"
    origin = Origin(host=parsed.raw_host.decode("ascii").strip("[]"), port=parsed.port or (443 if tls else 80), tls=tls)
    return Http1Pool(origin, tls=tls_context, resolve=resolver(reach), max_body_bytes=MAX_BODY_BYTES)


class DirectExchange:
    """One request that has been sent, or is about to be, and what has come of it."""

    # What only a stream needs, or a hand-over, is the class's until it is set: every call makes one of these.
    untouched = False
    """The server has not looked at the request: it may be sent again."""
    result: dict[str, Any] | None = None
    error: MCPError | AdapterError | None = None
    _searched = 0
    _last_event = ""
    _retry_s = RESUME_S
    _resumes = 0
    _taken = False
    _let_go: anyio.Event | None = None

    def __init__(
        self,
        way: DirectWay,
        *,
        label: str,
        method: str,
        number: str,
        fields: bytes,
        request: bytes,
        repeatable: bool,
        modern: bool,
        heard: Heard,
        tell: Notice,
        tell_soon: Callable[[str, JsonObject], None],
    ) -> None:
        """`fields` are the header lines that go with whatever is sent for it; `request` is the whole POST.

        `repeatable`: the request may be sent once more when the connection was closed before a byte was answered.
        """
        self.method = method
        self.token = number
        """The progress token that it was sent with, where it was sent with one."""
        self._way = way
        self._label = label
        self._number = number
        self._fields = fields
        self._request = request
        self._repeatable = repeatable
        self._modern = modern
        self._heard = heard
        self._tell = tell
        self._tell_soon = tell_soon
        self._events: deque[dict[str, Any]] = deque()
        self._buffer = bytearray()
        self._response: Response | None = way.pool.send(request)

    @property
    def done(self) -> bool:
        """Whether result or error are there."""
        return self.result is not None or self.error is not None

    @property
    def alone(self) -> bool:
        """Whether it is under way, and nobody follows it who could answer what the server asks."""
        return not (self.done or self._taken)

    async def settled(self, patience_s: float) -> bool:
        """Wait for the result; False when something else came first, or it takes longer than `patience_s`.

        A connection is made first where none is kept.
        """
        until = 0.0
        while True:
            response = self._response
            if response is None:
                try:
                    response = self._response = await self._way.pool.connect_and_send(self._request)
                except NotConnected as error:
                    self.untouched = True
                    self.error = RemoteUnavailable(self._label, f"nothing answers at {self._way.place} ({error})")
                    return True
            if not await response.changed(patience_s):
                return False
            seen = self.look()
            if seen is not None:
                return seen
            now = anyio.current_time()
            until = until or now + patience_s
            patience_s = max(until - now, 0.0)

    def watch(self, listener: Callable[[], None] | None) -> bool:
        """Have a listener called, once, when it is time to `look`; False where `settled` has a connection to make."""
        if self._response is None:
            return False
        self._response.watch(listener)
        return True

    def look(self) -> bool | None:
        """Take what has come: what `settled` returns, or None where there is more to wait for."""
        response = self._response
        assert response is not None, "somebody has waited for it"
        response.noticed()
        self._read(response)
        if self._should_repeat(response):
            self._repeatable, self._response, self.error = False, None, None
            return None
        if self.done or self._events:
            return not self._events
        # Ended, the rest of its stream is to be asked for; and whoever is in a hurry waits no longer.
        return False if response.ended or self._let_go is not None else None

    def abandon(self) -> None:
        """Let go of it, unless somebody else has taken it over: the server is told that nobody waits any more."""
        if self._let_go is not None:
            self._let_go.set()
        if not self._taken:
            self._taken = True
            if self._response is not None:
                self._response.abandon()
                if not self._modern and not self.done:
                    self._tell_soon("notifications/cancelled", self._cancelled())

    def _cancelled(self) -> JsonObject:
        return {"requestId": self._number, "reason": "cancelled"}

    def hurry(self) -> anyio.Event:
        """Have `settled` return now; returns what is set once the exchange has been taken over, or let go."""
        if self._let_go is None:
            self._let_go = anyio.Event()
        if self._response is not None:
            self._response.hurry()
        return self._let_go

    def take_over(self) -> bool:
        """Make it the caller's, who is to `finish` it; False when it is somebody's already, or best sent anew."""
        if self._let_go is not None:
            self._let_go.set()
        if self._taken or self.untouched:
            return False
        self._taken = True
        return True

    async def finish(self, sink: Sink | None, timeout_s: float | None) -> dict[str, Any]:
        """Follow it to its end, handing on what comes meanwhile, and return the result.

        Raises:
            MCPError: the server answered with a JSON-RPC error.
            AdapterError: it did not answer in the protocol, or not at all.
            TimeoutError: it took longer than `timeout_s`.
        """
        try:
            with anyio.fail_after(timeout_s):
                await self._follow(sink)
        except BaseException:
            await self._give_up()
            raise
        if self.error is not None:
            raise self.error
        assert self.result is not None, "it ends with a result or an error"
        return self.result

    async def _follow(self, sink: Sink | None) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                while self._events:
                    message = self._events.popleft()
                    if "id" in message:
                        tasks.start_soon(self._answer, message, sink)
                    else:
                        await self._pass_on(message, sink)
                if self.done:
                    break
                await self._more()
            tasks.cancel_scope.cancel()

    async def _more(self) -> None:
        """Wait until more has come; where a stream ended too soon, ask for the rest of it."""
        response = self._response
        if response is not None and response.ended:
            self._read(response)  # what came, and the end, between the last look and the handing over
            if self.done or self._events:
                return
        if response is None:
            await self.settled(SILENCE_S)
        elif not response.ended:
            if await response.changed(SILENCE_S):
                self._read(response)
            else:
                self.error = RemoteUnavailable(self._label, f"{self._way.place} said nothing for {SILENCE_S:g} s")
        else:
            self._resumes += 1
            await anyio.sleep(self._retry_s)
            last = f"Last-Event-ID: {self._last_event}\r\n".encode("latin-1", "replace")
            self._buffer.clear()
            self._searched = 0
            try:
                self._response = await self._way.pool.connect_and_send(self._way.get(self._fields + last))
            except NotConnected as error:
                self.error = self._cut_off(error)

    async def _pass_on(self, message: dict[str, Any], sink: Sink | None) -> None:
        method = str(message.get("method"))
        params = message.get("params")
        said: JsonObject = cast("JsonObject", params) if isinstance(params, dict) else {}
        if method == "notifications/progress":
            if sink is not None and said.get("progressToken") == self.token:
                await sink.notify(method, said)
        elif method in ("notifications/message", "notifications/elicitation/complete") and sink is not None:
            await sink.notify(method, said)
        else:
            await self._heard(method, said)

    async def _answer(self, message: dict[str, Any], sink: Sink | None) -> None:
        """Answer what the server asks in the middle of the request."""
        method = str(message.get("method"))
        params = message.get("params")
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            if method == "ping":
                answer["result"] = {}
            elif sink is None:
                raise MCPError(-32601, f"{method} is not offered on this connection")
            else:
                answer["result"] = dict(
                    await sink.ask(method, cast("JsonObject", params) if isinstance(params, dict) else {})
                )
        except MCPError as error:
            answer["error"] = error.error.model_dump(by_alias=True, mode="json", exclude_none=True)
        except Exception as error:  # a fault of ours must not leave the server waiting
            answer["error"] = {"code": INTERNAL_ERROR, "message": f"{type(error).__name__}: {error}"}
        posted = self._way.post(self._fields, write_json(answer))
        try:
            response = self._way.pool.send(posted) or await self._way.pool.connect_and_send(posted)
            while not response.ended and await response.changed(SILENCE_S):
                response.take()
        except NotConnected:
            return  # the stream that the question came on ends too, and says so

    async def _give_up(self) -> None:
        if self.done or self._response is None:
            return
        self._response.abandon()
        if not self._modern:
            with anyio.move_on_after(_CANCEL_S, shield=True):
                await self._tell("notifications/cancelled", self._cancelled())

    def _should_repeat(self, response: Response) -> bool:
        return self._repeatable and isinstance(response.fault, BrokenOff) and response.reused and not response.any_byte

    # Reading

    def _read(self, response: Response) -> None:
        """Take what has come of the response."""
        if response.status == 200 and response.streams:
            self._read_events(response)
        elif response.ended:
            self._read_whole(response)

    def _read_whole(self, response: Response) -> None:
        if response.fault is not None:
            self.error = self._broken(response.fault)
            return
        body = response.take()
        kind = _kind(response.headers.get(b"content-type", b""))
        if response.status != 200 and self._resumes:  # of the rest of a stream: the request itself was looked at
            self.error = self._cut_off(f"HTTP {response.status} to who asks for the rest")
        elif response.status != 200:
            if 300 <= response.status < 400:
                self.untouched = self._way.blocked = True
            self.error = fault_of(
                response.status,
                body,
                kind,
                place=self._way.place,
                label=self._label,
                session=bool(self._way.session_id),
            )
            self.untouched = self.untouched or isinstance(self.error, SessionGone)
        elif kind != "application/json":
            what = "a web page" if kind == "text/html" else f"{kind or 'no content type'}"
            self.error = ProtocolViolation(self._label, f"{self._way.place} answered with {what}, not with MCP")
        elif response.headers.get(b"content-encoding", b"identity") != b"identity":
            self.error = ProtocolViolation(self._label, "its answer is packed, which it was asked not to be")
        if self.error is None:
            self._take_message(body)
            if not self.done:
                self._events.clear()
                self.error = ProtocolViolation(self._label, "its answer is not the response to our request")

    def _read_events(self, response: Response) -> None:
        self._buffer += response.take()
        while not self.done and (event := self._next_event()) is not None:
            kind, data = event
            if data and kind in (b"", b"message"):
                self._take_message(data)
        if self.done:
            response.leave()
        elif response.ended:
            if isinstance(response.fault, TooLarge):
                self.error = self._broken(response.fault)
            elif not self._last_event or self._resumes >= MOST_RESUMES:
                self.error = self._cut_off(response.fault)

    def _next_event(self) -> tuple[bytes, bytes] | None:
        """Cut the next event off the stream (WHATWG HTML, section 9.2.6); None when it is not whole yet."""
        buffer = self._buffer
        found = _EVENT_END.search(buffer, self._searched)
        if found is None:
            self._searched = max(0, len(buffer) - 3)  # the end may have come in part
            return None
        event = bytes(buffer[: found.start()])
        del buffer[: found.end()]
        self._searched = 0
        kind, data = b"", list[bytes]()
        for line in event.splitlines():
            name, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if name == b"data":
                data.append(value)
            elif name == b"event":
                kind = value
            elif name == b"id" and b"\0" not in value:
                self._last_event = value.decode("utf-8", "replace")
            elif name == b"retry" and value.isdigit():
                self._retry_s = min(int(value[:9]) / 1000, 60.0)
        return kind, b"\n".join(data)

    def _take_message(self, data: bytes) -> None:
        try:
            message = read_json(data)
        except ValueError:
            self.error = ProtocolViolation(self._label, f"its answer is not JSON-RPC ({_syntax(data)})")
            return
        if not isinstance(message, dict) or "jsonrpc" not in message:
            self.error = ProtocolViolation(self._label, "its answer is not JSON-RPC")
            return
        said = cast("dict[str, Any]", message)
        if "method" in said:
            self._events.append(said)
            return
        if isinstance(refused := said.get("error"), dict):
            self.error = _mcp_error(cast("dict[str, Any]", refused))
        elif said.get("id") != self._number:
            self.error = wrong_answer(self._label, said.get("id"))
        elif isinstance(result := said.get("result"), dict):
            self.result = cast("dict[str, Any]", result)
        else:
            self.error = ProtocolViolation(
                self._label, "its answer is not JSON-RPC: it has no result that is an object"
            )

    def _cut_off(self, why: object) -> AdapterError:
        more = f" ({why})" if why is not None else ""
        return RemoteUnavailable(self._label, f"the connection ended before the answer came{more}")

    def _broken(self, fault: HttpFault) -> AdapterError:
        match fault:
            case TooLarge():
                limit = MAX_BODY_BYTES // 1024 // 1024
                return ProtocolViolation(self._label, f"its answer is larger than {limit} MiB")
            case _:
                return RemoteUnavailable(self._label, f"the connection to {self._way.place} broke off ({fault})")


@lru_cache(maxsize=256)
def _kind(content_type: bytes) -> str:
    """Return a media type without its parameters."""
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


_begun: ContextVar[DirectExchange | None] = ContextVar("mcp_begun", default=None)


@contextmanager
def handing_over(exchange: Begun) -> Generator[None]:
    """Let the next request of the same method, in this context, take an exchange over; let go of it if none does."""
    assert isinstance(exchange, DirectExchange), "what `McpSession.begin` returned"
    token = _begun.set(exchange)
    try:
        yield
    finally:
        _begun.reset(token)
        exchange.abandon()


def handed_over(method: str) -> DirectExchange | None:
    """Return the exchange that a request of this method is to follow, once."""
    exchange = _begun.get()
    if exchange is None or exchange.method != method or not exchange.take_over():
        return None
    return exchange


def _syntax(text: bytes) -> str:
    """Say where a text is no JSON, as the SDK's reader does."""
    try:
        from_json(text)
    except ValueError as error:
        return str(error)
    return "it is not JSON that we read"


def _mcp_error(error: Mapping[str, Any]) -> MCPError:
    code, text = error.get("code"), error.get("message")
    return MCPError(code if isinstance(code, int) else INTERNAL_ERROR, str(text or ""), error.get("data"))
