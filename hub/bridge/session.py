"""The legacy era's session (MCP 2025-11-25 and older) with the hub, made again when the hub has lost it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast
from uuid import uuid4

import anyio
import anyio.abc

from .headers import header_value
from .host import Host
from .http import Answer, HubGone, exchange
from .location import Location
from .message import CHANGES, Message, dump, params_of

JSON_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}

_LOST = (HubGone, OSError)
_BETWEEN_STREAMS_S = 1.0
"""Seconds between two streams: the hub ends one now and then, and is not to be asked a thousand times a second."""


@dataclass(eq=False)
class Session:
    """A legacy session with the hub."""

    number: int
    id: str
    version: str


class Sessions:
    """The one session there is at a time, and the stream of what the hub says in it unasked."""

    def __init__(self, location: Location, host: Host, tasks: anyio.abc.TaskGroup, log: Callable[[str], None]) -> None:
        self._location = location
        self._host = host
        self._tasks = tasks
        self._log = log
        self._count = 0
        self._beginning = anyio.Lock()
        self.current: Session | None = None
        self.opening: Message | None = None
        """The `initialize` of the host; None as long as it speaks the modern era."""
        self._level: Message | None = None
        """The host's last `logging/setLevel`."""
        self._watched: dict[str, Message] = {}
        """Its `resources/subscribe` by URI."""

    async def ensure(self) -> Session | None:
        """Return the session; when the hub has lost it, make another as the host made the first.

        Raises:
            HubGone: the hub did not begin one.
        """
        async with self._beginning:
            if self.current is not None or self.opening is None:
                return self.current
            opening = {**self.opening, "id": f"interhub-bridge-{uuid4()}"}
            async with exchange(await self._location.find(), "POST", session_headers(None), dump(opening)) as answer:
                said: object = None
                async for data in answer.messages():
                    said = json.loads(data)
                session = self.begin(answer, said)
            if session is None:
                raise HubGone(f"it did not begin a session (HTTP {answer.status})", sent=False)
            await self.post(session, {"jsonrpc": "2.0", "method": "notifications/initialized"})
            for asked in (self._level, *self._watched.values()):
                if asked is not None:
                    await self.post(session, {**asked, "id": f"interhub-bridge-{uuid4()}"})
            self._tasks.start_soon(self.hear, session)
            # Whatever happened between the two sessions was told to nobody.
            offered = cast("Message", cast("Message", said)["result"].get("capabilities") or {})
            for name, method in CHANGES.items():
                if name in offered:
                    await self._host.write({"jsonrpc": "2.0", "method": method})
            for uri in self._watched:
                updated = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}
                await self._host.write(updated)
            return session

    def granted(self, message: Message) -> None:
        """Take note of a request that the hub has granted, if another session must be told it again."""
        method, uri = message.get("method"), str(params_of(message).get("uri"))
        if method == "logging/setLevel":
            self._level = message
        elif method == "resources/subscribe":
            self._watched[uri] = message
        elif method == "resources/unsubscribe":
            self._watched.pop(uri, None)

    def begin(self, answer: Answer, said: object) -> Session | None:
        """Take up the session that an answer to `initialize` begins; None when it begins none."""
        result = cast("Message", said).get("result") if isinstance(said, dict) else None
        session_id = answer.headers.get("mcp-session-id")
        if not isinstance(result, dict) or session_id is None:
            return None
        self._count += 1
        version = str(cast("Message", result).get("protocolVersion", ""))
        self.current = Session(number=self._count, id=session_id, version=version)
        return self.current

    def forget(self, session: Session) -> None:
        """Take note that the hub does not know a session any more."""
        if self.current is session:
            self.current = None

    async def break_off(self, session: Session) -> None:
        """Forget a session whose hub is gone, and take back what it had asked the host."""
        self.forget(session)
        await self._host.withdraw(session.number)

    async def post(self, session: Session, message: Message) -> None:
        """Send a message that nobody waits for an answer to; that it was lost is only logged."""
        try:
            async with exchange(await self._location.find(), "POST", session_headers(session), dump(message)):
                pass
        except _LOST as error:
            self._log(f"the hub did not take {message.get('method') or 'an answer'}: {error}")

    async def hear(self, session: Session) -> None:
        """Relay what the hub says unasked, as long as the session lasts; make another when the hub has lost it."""
        headers = {**session_headers(session), "accept": "text/event-stream"}
        while self.current is session:
            address = await self._location.found()
            try:
                async with exchange(address, "GET", headers) as answer:
                    if answer.status == 404:
                        await self.break_off(session)
                        break
                    if not answer.is_stream:
                        return
                    async for data in answer.events():
                        await self._host.say(data, session.number)
            except _LOST as error:
                self._log(f"the stream of what the hub says broke off: {error}")
                self._location.lost(address)
            await anyio.sleep(_BETWEEN_STREAMS_S)
        if self.current is None:
            try:
                await self.ensure()
            except Exception as error:  # the edge: the next request tries again, and is told
                self._log(f"no session could be made: {type(error).__name__}: {error}")

    async def end(self) -> None:
        """Tell the hub that the session is over."""
        if self.current is None or self._location.known is None:
            return
        try:
            async with exchange(self._location.known, "DELETE", session_headers(self.current)):
                pass
        except HubGone as gone:
            self._log(f"the session could not be ended: {gone}")


def session_headers(session: Session | None) -> Mapping[str, str]:
    """Return the headers of a legacy request, in a session or outside one."""
    if session is None:
        return JSON_HEADERS
    version = {"mcp-protocol-version": header_value(session.version)} if session.version else {}
    return {**JSON_HEADERS, "mcp-session-id": session.id, **version}
