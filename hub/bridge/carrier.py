"""Carries messages between the host and the hub, each by the rules of its era.

* Modern era (MCP 2026-07-28): every request is a POST of its own; to cancel one is to hang up on it.
* Legacy era (2025-11-25 and older): one session, remade when the hub has lost it, and one stream for what the hub says
  unasked. What the hub asks is numbered anew, so that an answer never reaches the wrong hub.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast
from uuid import uuid4

import anyio
import anyio.abc

from .headers import ANNOTATION, RequestHeaders, objects
from .host import Host, Write
from .http import Address, Answer, HubGone, exchange
from .location import Locate, Location, Look
from .message import (
    CHANGES,
    HEADER_MISMATCH,
    INVALID_REQUEST,
    PARSE_ERROR,
    SERVER_ERROR,
    SUBSCRIPTION_KEY,
    Id,
    Message,
    dump,
    params_of,
    repeatable,
    version_of,
)
from .session import JSON_HEADERS, Session, Sessions, session_headers

DRAIN_S = 10.0
"""Seconds that requests in flight get when the host closes stdin."""
DELETE_S = 2.0
ATTEMPTS = 3
"""How often a request that may be sent twice is sent."""
MAX_CONNECTIONS = 200
"""Requests that are with the hub at once; more wait. A host may have no more than 1,024 open files."""
MAX_PAGES = 1000
"""Pages of tools that are read to find one."""

_ANNOTATION = ANNOTATION.encode()
_ASKED_CHANGES = {f"{name}ListChanged": method for name, method in CHANGES.items()}


async def bridge(
    locate: Locate,
    lines: AsyncIterator[bytes],
    write: Write,
    *,
    look: Look | None = None,
    drain_s: float = DRAIN_S,
    log: Callable[[str], None],
) -> None:
    """Carry messages until `lines` ends, then let what is in flight end for `drain_s` seconds.

    `locate` finds the hub; what it raises is told to the host as the error of the request that needed the hub. `look`
    finds it only where it runs: by it, a host that says nothing hears again of a hub that was restarted.
    """
    tasks = anyio.create_task_group()
    carrier = _Carrier(Location(locate, look), write, tasks, log)
    async with tasks:
        await carrier.run(lines, drain_s)
        tasks.cancel_scope.cancel()
    with anyio.move_on_after(DELETE_S):
        await carrier.end()


class _Carrier:
    def __init__(
        self, location: Location, write: Write, tasks: anyio.abc.TaskGroup, log: Callable[[str], None]
    ) -> None:
        self._tasks = tasks
        self._log = log
        self._location = location
        self._places = anyio.CapacityLimiter(MAX_CONNECTIONS)
        self._host = Host(write)
        self._sessions = Sessions(self._location, self._host, tasks, log)
        self._headers = RequestHeaders()
        self._in_flight: dict[Id, anyio.CancelScope] = {}
        self._listening: set[Id] = set()
        self._idle = anyio.Event()
        self._dropped: set[Id] = set()
        """Legacy requests that the host cancelled: their answers are not wanted."""

    async def run(self, lines: AsyncIterator[bytes], drain_s: float) -> None:
        self._tasks.start_soon(self._warm_up)
        async for line in lines:
            if line.strip():
                await self._take(line)
        with anyio.move_on_after(drain_s):
            while self._in_flight.keys() - self._listening:
                self._idle = anyio.Event()
                await self._idle.wait()

    async def end(self) -> None:
        await self._sessions.end()

    async def _warm_up(self) -> None:
        """Look for the hub while the host is still thinking of its first message."""
        try:
            await self._location.find()
        except Exception as error:  # the edge: the request that needs the hub is told
            self._log(str(error))

    # What the host says

    async def _take(self, line: bytes) -> None:
        try:
            message: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            await self._host.fail(None, PARSE_ERROR, f"this line is not JSON: {error}")
            return
        for each in cast("list[object]", message) if isinstance(message, list) else [message]:
            if isinstance(each, dict):
                await self._take_message(cast("Message", each))
            else:
                await self._host.fail(None, INVALID_REQUEST, "a message must be a JSON object")

    async def _take_message(self, message: Message) -> None:
        method = message.get("method")
        if not isinstance(method, str):
            await self._take_response(message)
        elif message.get("id") is None:
            await self._take_notification(method, message)
        elif not isinstance(message["id"], str | int):
            await self._host.fail(None, INVALID_REQUEST, "the id of a request is a string or an integer")
        elif message["id"] in self._in_flight:
            await self._host.fail(message["id"], INVALID_REQUEST, "a request of this id is still being answered")
        elif method == "initialize":
            self._sessions.opening = message
            await self._request(message, method)  # nothing else can be said before it is answered
        else:
            self._in_flight[message["id"]] = anyio.CancelScope()
            self._tasks.start_soon(self._request, message, method)

    async def _take_notification(self, method: str, message: Message) -> None:
        if method == "notifications/cancelled":
            request_id = params_of(message).get("requestId")
            if isinstance(request_id, str | int) and request_id in self._in_flight:
                if self._sessions.current is None:
                    self._in_flight[request_id].cancel()
                    return
                self._dropped.add(request_id)
        if self._sessions.current is None:
            return  # the modern era has no other notifications to the server
        session = self._sessions.current
        await self._sessions.post(session, message)
        if method == "notifications/initialized":
            self._tasks.start_soon(self._sessions.hear, session)

    async def _take_response(self, message: Message) -> None:
        asked = self._host.answered(str(message.get("id")))
        session = self._sessions.current
        if asked is None or session is None or asked[0] != session.number:
            return  # it answers a hub that is no more
        await self._sessions.post(session, {**message, "id": asked[1]})

    # What the host asks

    async def _request(self, message: Message, method: str) -> None:
        request_id: Id = message["id"]
        scope = self._in_flight.setdefault(request_id, anyio.CancelScope())
        version = version_of(message)
        with scope:
            try:
                if version is None:
                    async with self._places:
                        await self._legacy_request(message, method)
                elif method == "subscriptions/listen":
                    self._listening.add(request_id)
                    await self._listen(message, version)
                else:
                    async with self._places:
                        await self._modern_request(message, method, version)
            except HubGone as gone:
                await self._host.fail(request_id, SERVER_ERROR, _gone(gone, method))
            except Exception as error:  # the edge: what the host sent, or `locate` raised, must not end the bridge
                self._log(f"{method} failed: {type(error).__name__}: {error}")
                await self._host.fail(request_id, SERVER_ERROR, str(error))
        self._in_flight.pop(request_id, None)
        self._listening.discard(request_id)
        self._dropped.discard(request_id)
        self._idle.set()

    def _modern(self, message: Message, method: str, version: str) -> Mapping[str, str]:
        return {**JSON_HEADERS, **self._headers.of(method, params_of(message), version)}

    async def _modern_request(self, message: Message, method: str, version: str) -> None:
        message, may_repeat = repeatable(message, method)
        headers, body = self._modern(message, method, version), dump(message)
        may_learn, must_learn = method == "tools/call", False
        for attempt in range(ATTEMPTS):
            address = await self._location.find()
            try:
                if must_learn:
                    await self._learn(address, message, version)
                    headers, may_learn, must_learn = self._modern(message, method, version), False, False
                async with exchange(address, "POST", headers, body) as answer:
                    if answer.status == 401 and attempt == 0 and await self._location.has_moved(address):
                        continue
                    await self._relay(answer, message, may_learn=may_learn)
                return
            except _HeadersWanted:
                must_learn = True  # the host has not listed the tool, or not since it changed; it knows of no headers
            except HubGone as gone:
                self._location.lost(address)
                if attempt == ATTEMPTS - 1 or (gone.sent and not may_repeat):
                    raise

    async def _learn(self, address: Address, call: Message, version: str) -> None:
        """Read the list of tools as far as the one that is called.

        Raises:
            HubGone: the list could not be read; nothing has been called yet.
        """
        given = params_of(call)
        meta = {key: value for key, value in given["_meta"].items() if key != "progressToken"}
        cursor: dict[str, object] = {}
        for _ in range(MAX_PAGES):
            asked: Message = {"jsonrpc": "2.0", "id": f"interhub-bridge-{uuid4()}", "method": "tools/list"}
            asked["params"] = {"_meta": meta, **cursor}
            said: object = None
            async with exchange(address, "POST", self._modern(asked, "tools/list", version), dump(asked)) as answer:
                async for data in answer.messages():
                    said = json.loads(data)
            result = params_of({"params": cast("Message", said).get("result")}) if isinstance(said, dict) else {}
            self._headers.learn(result)
            if any(tool.get("name") == given.get("name") for tool in objects(result.get("tools"))):
                return
            if not isinstance(result.get("nextCursor"), str):
                return
            cursor = {"cursor": result["nextCursor"]}

    async def _listen(self, message: Message, version: str) -> None:
        """Keep a subscription open. When the hub was away, anything may have changed meanwhile, and is said to have."""
        headers, body = self._modern(message, "subscriptions/listen", version), dump(message)
        again = False
        address = await self._location.find()
        while True:
            try:
                async with exchange(address, "POST", headers, body) as answer:
                    if not answer.is_stream:
                        await self._relay(answer, message)
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
                            await self._host.say(data)
                        again = True
            except HubGone as gone:
                self._log(f"a subscription broke off: {gone}")
            self._location.lost(address)
            address = await self._location.found()

    async def _ended(self, said: Message) -> bool:
        """Take the end of a subscription: a stopping hub ends it with a result, and a host need not hear of that."""
        if "error" in said:
            await self._host.write(said)
            return False
        return True

    async def _all_changed(self, acknowledged: Message, subscription: Id) -> None:
        honoured = cast("Message", params_of(acknowledged).get("notifications") or {})
        for name, method in _ASKED_CHANGES.items():
            if honoured.get(name):
                params = {"_meta": {SUBSCRIPTION_KEY: subscription}}
                await self._host.write({"jsonrpc": "2.0", "method": method, "params": params})
        uris: object = honoured.get("resourceSubscriptions")
        for uri in cast("list[object]", uris) if isinstance(uris, list) else []:
            updated = {"uri": uri, "_meta": {SUBSCRIPTION_KEY: subscription}}
            await self._host.write({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": updated})

    # The legacy session

    async def _legacy_request(self, message: Message, method: str) -> None:
        message, may_repeat = repeatable(message, method)
        for attempt in range(ATTEMPTS):
            session = None if method == "initialize" else await self._sessions.ensure()
            address = await self._location.find()
            try:
                async with exchange(address, "POST", session_headers(session), dump(message)) as answer:
                    if session is not None and answer.status == 404:
                        self._sessions.forget(session)
                        continue
                    if answer.status == 401 and attempt == 0 and await self._location.has_moved(address):
                        continue
                    await self._relay(answer, message, session=session, opening=method == "initialize")
                return
            except HubGone as gone:
                self._location.lost(address)
                if session is not None:
                    await self._sessions.break_off(session)
                if attempt == ATTEMPTS - 1 or (gone.sent and not may_repeat and method != "initialize"):
                    raise

    # What the hub says

    async def _relay(
        self,
        answer: Answer,
        request: Message,
        *,
        session: Session | None = None,
        opening: bool = False,
        may_learn: bool = False,
    ) -> None:
        """Write an answer's messages.

        Raises:
            HubGone: it broke off before the request was answered.
            _HeadersWanted: the hub misses headers, and `may_learn` says that we have not looked which yet.
        """
        request_id: Id = request["id"]
        answered = False
        body = b""
        async for data in answer.messages():
            body = data
            try:
                said = cast("Message", json.loads(data))
            except ValueError:
                break
            if not isinstance(cast("object", said), dict) or said.get("jsonrpc") != "2.0":
                break
            if "method" in said:
                await self._host.say(data, session.number if session is not None else None)
                continue
            code: object = params_of({"params": said.get("error")}).get("code")
            if session is not None and code == SERVER_ERROR:
                raise HubGone("it is stopping", sent=True)  # the SDK's word for a session that ends in the middle
            if may_learn and code == HEADER_MISMATCH:
                raise _HeadersWanted
            answered = True
            if session is not None and "result" in said:
                self._sessions.granted(request)
            if _ANNOTATION in data and isinstance(said.get("result"), dict):
                self._headers.learn(said["result"])
            if opening:
                self._sessions.begin(answer, said)
            if request_id in self._dropped:
                continue
            await (self._host.write({**said, "id": request_id}) if said.get("id") is None else self._host.say(data))
        if answered:
            return
        if answer.is_stream:
            raise HubGone("it ended the answer in the middle", sent=True)
        if answer.status >= 500:
            raise HubGone(f"it answered HTTP {answer.status}", sent=True)
        text = body.decode("utf-8", "replace")[:300]
        raise _Refused(f"the hub answered HTTP {answer.status}{f': {text}' if text else ''}")


class _HeadersWanted(Exception):
    """The hub compares headers that we did not know of."""


class _Refused(Exception):
    """The hub answered with something other than JSON-RPC."""


def _gone(gone: HubGone, method: str) -> str:
    if not gone.sent:
        return f"the hub cannot be reached: {gone}"
    if method == "tools/call":
        return (
            f"the hub went away while it carried this out ({gone}): it may or may not have been done. "
            "A delegation goes on when the hub is back: see `interhub runs list`."
        )
    return f"the hub went away before it answered ({gone}); ask again"
