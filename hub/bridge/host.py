"""The host that started the bridge, as it is written to: one message at a time, and no id that two hubs could share."""

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import anyio

from .message import Id, Message, dump, params_of

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Takes one message, a line without its end."""


class Host:
    """Writes to the host. What a session's hub asks it is numbered anew, so that an answer never reaches another."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._writing = anyio.Lock()
        self._asked: dict[str, tuple[int, Id]] = {}
        """What a hub asked: our id to the session's number and the hub's id."""

    async def write(self, message: Message) -> None:
        """Write a message of ours."""
        await self._line(dump(message))

    async def fail(self, request_id: Id | None, code: int, why: str) -> None:
        """Answer a request with an error."""
        await self.write({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": why}})

    async def say(self, data: bytes, session: int | None = None) -> None:
        """Write one message of the hub; what it asks in a session, given by its number, gets an id of ours."""
        if session is not None and b'"method"' in data:
            said = cast("Message", json.loads(data))
            if said.get("id") is not None and "method" in said:
                our_id = _our_id(session, said["id"])
                self._asked[our_id] = (session, said["id"])
                await self.write({**said, "id": our_id})
                return
            if said.get("method") == "notifications/cancelled":
                params = params_of(said)
                our_id = _our_id(session, params.get("requestId"))
                self._asked.pop(our_id, None)
                await self.write({**said, "params": {**params, "requestId": our_id}})
                return
        # A line feed in JSON can only be white space between tokens.
        await self._line(data.replace(b"\n", b" ").replace(b"\r", b" "))

    def answered(self, our_id: str) -> tuple[int, Id] | None:
        """Return which session asked under an id of ours, and its own id; None when none does any more."""
        return self._asked.pop(our_id, None)

    async def withdraw(self, session: int) -> None:
        """Take back what a session asked whose hub is gone."""
        for our_id in [our_id for our_id, (number, _) in self._asked.items() if number == session]:
            del self._asked[our_id]
            params = {"requestId": our_id, "reason": "the hub is gone"}
            await self.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})

    async def _line(self, line: bytes) -> None:
        async with self._writing:
            await self._write(line)


def _our_id(session: int, their_id: object) -> str:
    return f"hub-{session}-{their_id}"
