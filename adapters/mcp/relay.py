"""What a connection to an MCP server offers beyond calls, so that the hub can relay MCP itself without loss.

The hub's own face for MCP agents uses this; it asks a connection with `isinstance(connection, McpRelay)`.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import anyio

from interhub.adapters.base import Connection
from interhub.adapters.errors import RemoteUnavailable
from interhub.agent_cards import JsonObject

Notify: TypeAlias = Callable[[str, JsonObject], Awaitable[None]]
"""Takes a notification of a request: its method and parameters."""

Ask: TypeAlias = Callable[[str, JsonObject], Awaitable[JsonObject]]
"""Answers a request that the server makes: its method and parameters. Raises MCPError when it is not answered."""


class SessionGone(RemoteUnavailable):
    """The server no longer knows the session: it did not look at the request, which may go out again on a new one."""


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """What a server said when it was connected to."""

    version: str
    """The negotiated protocol version."""
    modern: bool
    """Whether that is 2026-07-28 or later."""
    answer: JsonObject
    """Its answer to `server/discover` or `initialize`, as it came."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A server of the older era has asked something in the middle of a request, which stays open meanwhile."""

    question_id: str
    """To answer it by (`McpRelay.answer`), for a bounded time. Unguessable."""
    method: str
    params: JsonObject


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A request's result, as it came."""

    result: JsonObject


Reply: TypeAlias = Answered | Asked
"""How a relayed request stands. Errors are raised."""


class RelaySession(Protocol):
    """A session of its own with the server, for one client of the older era."""

    @property
    def facts(self) -> ServerFacts:
        """What the server said in its handshake."""
        ...

    @property
    def direct(self) -> "Beginner":
        """What requests go directly on."""
        ...

    @property
    def lost(self) -> anyio.Event:
        """Set when the session has come to its end."""
        ...

    async def idle(self) -> None:
        """Wait until no request is under way."""
        ...

    async def request(self, method: str, params: JsonObject, *, notify: Notify, ask: Ask) -> JsonObject:
        """Send a request on, and return its result as it came; what belongs to it is notified and asked meanwhile.

        Raises:
            MCPError: the server answered with an error.
            AdapterError: it could not be reached.
        """
        ...

    async def notify(self, method: str, params: JsonObject) -> None:
        """Send a notification on."""
        ...


class Begun(Protocol):
    """A request that is on its way directly. To be handed over (`direct.handing_over`), abandoned, or used up."""

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, once it has settled well."""
        ...

    async def settled(self, patience_s: float) -> bool:
        """Wait for the result or error; False when something else came first, or it takes longer."""
        ...

    def watch(self, listener: Callable[[], None] | None) -> bool:
        """Have a listener called, once, when it is time to `look`; None takes it back.

        False where only `settled` goes on: it has a connection to make.
        """
        ...

    def look(self) -> bool | None:
        """Take what has come: what `settled` returns, or None where there is more to wait for."""
        ...

    def hurry(self) -> anyio.Event:
        """Have `settled` return now; returns what is set once the exchange has been taken over, or let go."""
        ...

    def abandon(self) -> None:
        """Let go of it, unless somebody else has taken it over."""
        ...


class Beginner(Protocol):
    """A session on which requests can be begun directly, past the SDK."""

    @property
    def modern(self) -> bool:
        """Whether it speaks 2026-07-28 or later."""
        ...

    def begin(
        self,
        method: str,
        params: dict[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        trace: Mapping[str, str] | None = None,
        repeatable: bool = False,
        owner: str = "",
    ) -> Begun | None:
        """Send a request; None where there is no such way to this server, or not now.

        `params` become the session's own. `trace` goes into headers and `_meta`. `repeatable`: the server may be given
        it twice. `owner`: whose it is, where a session is shared.
        """
        ...


@runtime_checkable
class McpRelay(Protocol):
    """A connection over which MCP can be relayed."""

    def current(self, answers: Collection[str] = ()) -> Beginner | None:
        """Return the shared session of callers that answer these methods, if one is open now."""
        ...

    async def facts(self) -> ServerFacts:
        """Return what the server said, connecting to it first if need be.

        Raises:
            AdapterError: it could not be reached.
        """
        ...

    async def send(
        self,
        method: str,
        params: JsonObject,
        *,
        owner: str,
        notify: Notify,
        answers: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request on over the shared session, as it is.

        `headers` are the client's `Mcp-Param-*`. `owner` names who may answer, should the server ask; `answers` are the
        methods that can be asked, any other is refused at once; a server of the older era is told of them in a
        session that is shared with callers that answer the same.

        Raises:
            MCPError: the server answered with an error.
            AdapterError: it could not be reached.
        """
        ...

    async def answer(self, question_id: str, answer: JsonObject, *, owner: str, notify: Notify) -> Reply:
        """Answer what the server asked, and wait for what follows.

        Raises:
            KeyError: no such question is open, or it is somebody else's.
            MCPError: the server answered the request with an error.
            AdapterError: it could not be reached.
        """
        ...

    def session(
        self, *, version: str, client_info: JsonObject, capabilities: JsonObject, notify: Notify, ask: Ask
    ) -> AbstractAsyncContextManager[RelaySession]:
        """Open a session of the older era for one client alone. Enter and exit it in the same task.

        `notify` and `ask` take what belongs to no request.

        Raises:
            AdapterError: it could not be reached, or does not speak the older era.
        """
        ...

    def watch(self, listener: Callable[[str, JsonObject], None], lost: Callable[[], None]) -> Callable[[], None]:
        """Have a listener called with every notification of shared sessions that belongs to no request.

        `lost` is called when a session has ended: what was subscribed to on it is not any more. Returns what ends that.
        """
        ...


@runtime_checkable
class Leasable(Protocol):
    """A handle, such as a pool's, that can lend the connection behind it."""

    def lease(self) -> AbstractAsyncContextManager[Connection]:
        """Hold the connection. When it goes away meanwhile the block is cancelled and left without an error.

        Raises:
            AdapterError: it could not be opened.
        """
        ...
