"""`interhub mcp`: carries a stdio host's MCP to the one running hub, so that any number of hosts share one hub.

It understands no more of MCP than it must: which era a message is of, which answer belongs to which request, and how to
begin again when the hub was restarted. It imports neither the MCP SDK nor the rest of the hub: what counts is the time
from a host's start to the first answer. Nothing but JSON-RPC is written to stdout.

* Modern era (MCP 2026-07-28): every request is a POST of its own; to cancel one is to hang up on it.
* Legacy era (2025-11-25 and older): one session, remade when the hub has lost it, and one stream for what the hub says
  unasked. What the hub asks is numbered anew, so that an answer never reaches the wrong hub.
"""

import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias, cast
from uuid import uuid4

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from .bridge_headers import ANNOTATION, RequestHeaders, header_value
from .bridge_http import Address, Answer, HubGone, exchange

Locate: TypeAlias = Callable[[], Address]
"""Finds the hub, starting one where none runs. Called in a thread: at the start, and when the hub is gone."""
Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Takes one message, a line without its end."""
Message: TypeAlias = dict[str, Any]
Id: TypeAlias = str | int

DRAIN_S = 10.0
"""Seconds that requests in flight get when the host closes stdin."""
DELETE_S = 2.0
ATTEMPTS = 3
"""How often a request that may be sent twice is sent."""

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
IDEMPOTENCY_KEY = "interhub/idempotencyKey"
"""Key of `_meta` that makes a `delegate` sent twice one run (`interhub.hub.faces.mcp.turn`)."""
SERVER_ERROR = -32000
PARSE_ERROR = -32700
INVALID_REQUEST = -32600

_JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_ANNOTATION = ANNOTATION.encode()
_CHANGES = {
    "tools": "notifications/tools/list_changed",
    "prompts": "notifications/prompts/list_changed",
    "resources": "notifications/resources/list_changed",
}
_ASKED_CHANGES = {f"{name}ListChanged": method for name, method in _CHANGES.items()}


@dataclass(eq=False)
class _Session:
    """A legacy session with the hub."""

    number: int
    id: str
    version: str


async def bridge(
    locate: Locate, lines: AsyncIterator[bytes], write: Write, *, drain_s: float = DRAIN_S, log: Callable[[str], None]
) -> None:
    """Carry messages until `lines` ends, then let what is in flight end for `drain_s` seconds.

    `locate` finds the hub; what it raises is told to the host as the error of the request that needed the hub.
    """
    await _Bridge(locate, write, log).run(lines, drain_s)


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


class _Bridge:
    def __init__(self, locate: Locate, write: Write, log: Callable[[str], None]) -> None:
        self._locate = locate
        self._write_line = write
        self._log = log
        self._writing = anyio.Lock()
        self._address: Address | None = None
        self._locating = anyio.Lock()
        self._relocated = anyio.Event()
        self._in_flight: dict[Id, anyio.CancelScope] = {}
        self._listening: set[Id] = set()
        self._idle = anyio.Event()
        self._initialize: Message | None = None
        self._session: _Session | None = None
        self._sessions = 0
        self._beginning = anyio.Lock()
        self._asked: dict[str, tuple[int, Id]] = {}
        """What the hub asked the host: our id to session and the hub's id."""
        self._headers = RequestHeaders()
        self._dropped: set[Id] = set()
        """Legacy requests that the host cancelled: their answers are not wanted."""
        self._tasks: anyio.abc.TaskGroup

    async def run(self, lines: AsyncIterator[bytes], drain_s: float) -> None:
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._warm_up)
            async for line in lines:
                if line.strip():
                    await self._take(line)
            with anyio.move_on_after(drain_s):
                while self._in_flight.keys() - self._listening:
                    self._idle = anyio.Event()
                    await self._idle.wait()
            tasks.cancel_scope.cancel()
        with anyio.move_on_after(DELETE_S):
            await self._end_session()

    # What the host says

    async def _take(self, line: bytes) -> None:
        try:
            message: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            await self._fail(None, PARSE_ERROR, f"this line is not JSON: {error}")
            return
        for each in cast("list[object]", message) if isinstance(message, list) else [message]:
            if isinstance(each, dict):
                await self._take_message(cast("Message", each))
            else:
                await self._fail(None, INVALID_REQUEST, "a message must be a JSON object")

    async def _take_message(self, message: Message) -> None:
        method = message.get("method")
        if not isinstance(method, str):
            await self._take_response(message)
        elif message.get("id") is None:
            await self._take_notification(method, message)
        elif message["id"] in self._in_flight:
            await self._fail(message["id"], INVALID_REQUEST, "a request of this id is still being answered")
        elif method == "initialize":
            self._initialize = message
            await self._request(message, method)  # nothing else can be said before it is answered
        else:
            self._in_flight[message["id"]] = anyio.CancelScope()
            self._tasks.start_soon(self._request, message, method)

    async def _take_notification(self, method: str, message: Message) -> None:
        if method == "notifications/cancelled":
            request_id = _params(message).get("requestId")
            scope = self._in_flight.get(request_id) if isinstance(request_id, str | int) else None
            if scope is not None and self._session is None:
                scope.cancel()
                return
            if isinstance(request_id, str | int):
                self._dropped.add(request_id)
        if self._session is None:
            return  # the modern era has no other notifications to the server
        session = self._session
        await self._post_quietly(session, message)
        if method == "notifications/initialized":
            self._tasks.start_soon(self._hear, session)

    async def _take_response(self, message: Message) -> None:
        asked = self._asked.pop(str(message.get("id")), None)
        session = self._session
        if asked is None or session is None or asked[0] != session.number:
            return  # it answers a hub that is no more
        await self._post_quietly(session, {**message, "id": asked[1]})

    async def _post_quietly(self, session: _Session, message: Message) -> None:
        try:
            async with exchange(await self._hub(), "POST", _legacy(session), _dump(message)):
                pass
        except _LOST as error:
            self._log(f"the hub did not take {message.get('method') or 'an answer'}: {error}")

    # What the host asks

    async def _request(self, message: Message, method: str) -> None:
        request_id: Id = message["id"]
        scope = self._in_flight.setdefault(request_id, anyio.CancelScope())
        version = _version(message)
        with scope:
            try:
                if version is None:
                    await self._legacy_request(message, method)
                elif method == "subscriptions/listen":
                    self._listening.add(request_id)
                    await self._listen(message, version)
                else:
                    await self._modern_request(message, method, version)
            except HubGone as gone:
                await self._fail(request_id, SERVER_ERROR, _gone(gone, method))
            except Exception as error:  # the edge: what the host sent, or `locate` raised, must not end the bridge
                self._log(f"{method} failed: {type(error).__name__}: {error}")
                await self._fail(request_id, SERVER_ERROR, str(error))
        self._in_flight.pop(request_id, None)
        self._listening.discard(request_id)
        self._dropped.discard(request_id)
        self._idle.set()

    def _modern(self, message: Message, method: str, version: str) -> Mapping[str, str]:
        return {**_JSON, **self._headers.of(method, _params(message), version)}

    async def _modern_request(self, message: Message, method: str, version: str) -> None:
        message, repeatable = _repeatable(message, method)
        headers, body = self._modern(message, method, version), _dump(message)
        for attempt in range(ATTEMPTS):
            address = await self._hub()
            try:
                async with exchange(address, "POST", headers, body) as answer:
                    if answer.status == 401 and attempt == 0 and await self._has_moved(address):
                        continue
                    await self._relay(answer, message["id"])
                return
            except HubGone as gone:
                self._lost(address)
                if attempt == ATTEMPTS - 1 or (gone.sent and not repeatable):
                    raise

    async def _listen(self, message: Message, version: str) -> None:
        """Keep a subscription open. When the hub was away, anything may have changed meanwhile, and is said to have."""
        headers, body = self._modern(message, "subscriptions/listen", version), _dump(message)
        again = False
        while True:
            address = await self._hub()
            try:
                async with exchange(address, "POST", headers, body) as answer:
                    if not answer.is_stream:
                        await self._relay(answer, message["id"])
                        return
                    async for data in answer.events():
                        said = json.loads(data)
                        if again and said.get("method") == "notifications/subscriptions/acknowledged":
                            await self._all_changed(said, message["id"])
                        elif "method" not in said:
                            again = await self._ended(said)
                            if not again:
                                return
                        else:
                            await self._say(data)
                        again = True
            except HubGone as gone:
                self._log(f"a subscription broke off: {gone}")
            self._lost(address)
            # An idle bridge must not start a hub that somebody stopped: it waits until a request needs one.
            await self._relocated.wait()

    async def _ended(self, said: Message) -> bool:
        """Take the end of a subscription: a stopping hub ends it with a result, and a host need not hear of that."""
        if "error" in said:
            await self._write(said)
            return False
        return True

    async def _all_changed(self, acknowledged: Message, subscription: Id) -> None:
        honoured = cast("Message", _params(acknowledged).get("notifications") or {})
        for name, method in _ASKED_CHANGES.items():
            if honoured.get(name):
                params = {"_meta": {SUBSCRIPTION_KEY: subscription}}
                await self._write({"jsonrpc": "2.0", "method": method, "params": params})

    # The legacy session

    async def _legacy_request(self, message: Message, method: str) -> None:
        message, repeatable = _repeatable(message, method)
        for attempt in range(ATTEMPTS):
            session = None if method == "initialize" else await self._ensure_session()
            address = await self._hub()
            try:
                async with exchange(address, "POST", _legacy(session), _dump(message)) as answer:
                    if session is not None and answer.status == 404:
                        self._forget(session)
                        continue
                    if answer.status == 401 and attempt == 0 and await self._has_moved(address):
                        continue
                    await self._relay(answer, message["id"], session=session, opening=method == "initialize")
                return
            except HubGone as gone:
                self._lost(address)
                if session is not None:
                    await self._break_off(session)
                if attempt == ATTEMPTS - 1 or (gone.sent and not repeatable and method != "initialize"):
                    raise

    async def _ensure_session(self) -> _Session | None:
        """Return the session; when the hub has lost it, make another as the host made the first."""
        async with self._beginning:
            if self._session is not None or self._initialize is None:
                return self._session
            opening = {**self._initialize, "id": f"interhub-bridge-{uuid4()}"}
            async with exchange(await self._hub(), "POST", _legacy(None), _dump(opening)) as answer:
                said: object = None
                async for data in _messages(answer):
                    said = json.loads(data)
                session = self._begin(answer, said)
            if session is None:
                raise HubGone(f"it did not begin a session (HTTP {answer.status})", sent=False)
            await self._post_quietly(session, {"jsonrpc": "2.0", "method": "notifications/initialized"})
            self._tasks.start_soon(self._hear, session)
            offered = cast("Message", cast("Message", said)["result"].get("capabilities") or {})
            for name, method in _CHANGES.items():
                if name in offered:
                    await self._write({"jsonrpc": "2.0", "method": method})
            return session

    def _begin(self, answer: Answer, said: object) -> _Session | None:
        result = cast("Message", said).get("result") if isinstance(said, dict) else None
        session_id = answer.headers.get("mcp-session-id")
        if not isinstance(result, dict) or session_id is None:
            return None
        self._sessions += 1
        version = str(cast("Message", result).get("protocolVersion", ""))
        self._session = _Session(number=self._sessions, id=session_id, version=version)
        return self._session

    def _forget(self, session: _Session) -> None:
        if self._session is session:
            self._session = None

    async def _break_off(self, session: _Session) -> None:
        """Forget a session whose hub is gone, and take back what it had asked the host."""
        self._forget(session)
        for our_id in [our_id for our_id, (number, _) in self._asked.items() if number == session.number]:
            del self._asked[our_id]
            params = {"requestId": our_id, "reason": "the hub is gone"}
            await self._write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    async def _hear(self, session: _Session) -> None:
        """Relay what the hub says unasked, as long as the session lasts."""
        headers = {**_legacy(session), "accept": "text/event-stream"}
        while self._session is session:
            try:
                async with exchange(await self._hub(), "GET", headers) as answer:
                    if not answer.is_stream:
                        return
                    async for data in answer.events():
                        await self._say(data, session)
            except _LOST:
                return  # the next request finds out, and makes another session
            await anyio.sleep(1)  # the hub ends a stream now and then: not a reason to ask it a thousand times a second

    async def _end_session(self) -> None:
        if self._session is None or self._address is None:
            return
        try:
            async with exchange(self._address, "DELETE", _legacy(self._session)):
                pass
        except HubGone as gone:
            self._log(f"the session could not be ended: {gone}")

    # What the hub says

    async def _relay(
        self, answer: Answer, request_id: Id, *, session: _Session | None = None, opening: bool = False
    ) -> None:
        """Write an answer's messages.

        Raises:
            HubGone: it broke off before the request was answered.
        """
        answered = False
        body = b""
        async for data in _messages(answer):
            body = data
            try:
                said = cast("Message", json.loads(data))
            except ValueError:
                break
            if not isinstance(cast("object", said), dict) or said.get("jsonrpc") != "2.0":
                break
            if "method" in said:
                await self._say(data, session)
                continue
            if session is not None and _params({"params": said.get("error")}).get("code") == SERVER_ERROR:
                raise HubGone("it is stopping", sent=True)  # the SDK's word for a session that ends in the middle
            answered = True
            if _ANNOTATION in data and isinstance(said.get("result"), dict):
                self._headers.learn(said["result"])
            if opening:
                self._begin(answer, said)
            if request_id in self._dropped:
                continue
            await (self._write({**said, "id": request_id}) if said.get("id") is None else self._say(data))
        if answered:
            return
        if answer.is_stream:
            raise HubGone("it ended the answer in the middle", sent=True)
        if answer.status >= 500:
            raise HubGone(f"it answered HTTP {answer.status}", sent=True)
        text = body.decode("utf-8", "replace")[:300]
        raise _Refused(f"the hub answered HTTP {answer.status}{f': {text}' if text else ''}")

    async def _say(self, data: bytes, session: _Session | None = None) -> None:
        """Write one message of the hub; what it asks gets an id of ours."""
        if session is not None and b'"method"' in data:
            said = cast("Message", json.loads(data))
            if said.get("id") is not None and "method" in said:
                our_id = _our_id(session, said["id"])
                self._asked[our_id] = (session.number, said["id"])
                await self._write({**said, "id": our_id})
                return
            if said.get("method") == "notifications/cancelled":
                params = _params(said)
                our_id = _our_id(session, params.get("requestId"))
                self._asked.pop(our_id, None)
                await self._write({**said, "params": {**params, "requestId": our_id}})
                return
        # A line feed in JSON can only be white space between tokens.
        await self._line(data.replace(b"\n", b" ").replace(b"\r", b" "))

    async def _write(self, message: Message) -> None:
        await self._line(_dump(message))

    async def _line(self, line: bytes) -> None:
        async with self._writing:
            await self._write_line(line)

    async def _fail(self, request_id: Id | None, code: int, why: str) -> None:
        await self._write({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": why}})

    # Where the hub is

    async def _warm_up(self) -> None:
        """Look for the hub while the host is still thinking of its first message."""
        try:
            await self._hub()
        except Exception as error:  # the edge: the request that needs the hub is told
            self._log(str(error))

    async def _hub(self) -> Address:
        async with self._locating:
            if self._address is None:
                self._address = await anyio.to_thread.run_sync(self._locate, abandon_on_cancel=True)
                self._relocated.set()
            return self._address

    def _lost(self, address: Address) -> None:
        if self._address is address:
            self._address = None
            self._relocated = anyio.Event()

    async def _has_moved(self, address: Address) -> bool:
        """Look again for a hub that does not take our key: True when there is another address or key to try."""
        self._lost(address)
        return await self._hub() != address


class _Refused(Exception):
    """The hub answered with something other than JSON-RPC."""


_LOST = (HubGone, OSError)


async def _messages(answer: Answer) -> AsyncIterator[bytes]:
    if answer.is_stream:
        async for data in answer.events():
            yield data
    elif body := await answer.body():
        yield body


def _gone(gone: HubGone, method: str) -> str:
    if not gone.sent:
        return f"the hub cannot be reached: {gone}"
    if method == "tools/call":
        return (
            f"the hub went away while it carried this out ({gone}): it may or may not have been done. "
            "A delegation goes on when the hub is back: see `interhub runs list`."
        )
    return f"the hub went away before it answered ({gone}); ask again"


def _params(message: Message) -> Message:
    params = message.get("params")
    return cast("Message", params) if isinstance(params, dict) else {}


def _meta(message: Message) -> Message:
    meta = _params(message).get("_meta")
    return cast("Message", meta) if isinstance(meta, dict) else {}


def _version(message: Message) -> str | None:
    """Return the modern version that a request names; None for a legacy one (MCP 2026-07-28, basic/versioning)."""
    version = _meta(message).get(VERSION_KEY)
    return version if isinstance(version, str) else None


def _legacy(session: _Session | None) -> Mapping[str, str]:
    if session is None:
        return _JSON
    version = {"mcp-protocol-version": header_value(session.version)} if session.version else {}
    return {**_JSON, "mcp-session-id": session.id, **version}


def _repeatable(message: Message, method: str) -> tuple[Message, bool]:
    """Give a delegation a key, so that it can be sent again to a restarted hub and still be one run."""
    params = _params(message)
    if method != "tools/call" or params.get("name") != "delegate":
        return message, False
    meta = {IDEMPOTENCY_KEY: str(uuid4()), **_meta(message)}
    return {**message, "params": {**params, "_meta": meta}}, True


def _our_id(session: _Session, their_id: object) -> str:
    return f"hub-{session.number}-{their_id}"


def _dump(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
