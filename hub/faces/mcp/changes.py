"""Telling MCP clients that lists changed: modern ones on the streams they listen on, legacy ones in their sessions."""

import anyio
import mcp_types as types
import structlog
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged

from .turn import Context, principal_of

SEND_TIMEOUT_S = 5.0
"""Seconds a legacy client has to take a notification before it is passed over."""

log = structlog.get_logger()


class ChangeNotices:
    """Who wants to hear of changes, by tenant. `run` it while requests are served."""

    def __init__(self) -> None:
        self._buses: dict[str, InMemorySubscriptionBus] = {}
        self._listeners: dict[str, ListenHandler] = {}
        self._sessions: dict[ServerSession, str] = {}
        self._changed: set[str] = set()
        self._wake = anyio.Event()

    def mark(self, tenant: str) -> None:
        """Note that a tenant's agents changed. Returns at once; changes in quick succession are told once."""
        self._changed.add(tenant)
        self._wake.set()

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Serve a modern client's `subscriptions/listen` until it hangs up."""
        tenant = principal_of(ctx).tenant
        if tenant not in self._listeners:
            self._buses[tenant] = InMemorySubscriptionBus()
            self._listeners[tenant] = ListenHandler(self._buses[tenant])
        return await self._listeners[tenant](ctx, params)

    async def initialized(self, ctx: Context, params: types.NotificationParams) -> None:
        """Remember a legacy session, until it ends."""
        session = ctx.session
        self._sessions[session] = principal_of(ctx).tenant
        # The SDK has no public way to hear that a session ended; a test pins this one.
        stack = session._connection.exit_stack  # pyright: ignore[reportPrivateUsage]
        stack.callback(self._sessions.pop, session, None)

    async def run(self) -> None:
        """Tell of changes until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            tenants, self._changed = self._changed, set()
            for tenant in tenants:
                await self._tell(tenant)

    def close(self) -> None:
        """End the streams of those who listen, so that they know that it was meant."""
        for listener in self._listeners.values():
            listener.close()

    async def _tell(self, tenant: str) -> None:
        bus = self._buses.get(tenant)
        if bus is not None:
            for event in (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged()):
                await bus.publish(event)
        async with anyio.create_task_group() as group:
            for session in [session for session, owner in self._sessions.items() if owner == tenant]:
                group.start_soon(self._tell_session, session)

    async def _tell_session(self, session: ServerSession) -> None:
        with anyio.move_on_after(SEND_TIMEOUT_S):
            try:
                await session.send_tool_list_changed()
                await session.send_prompt_list_changed()
                await session.send_resource_list_changed()
            except (MCPError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                log.debug("mcp_session_gone", why=str(error))
                self._sessions.pop(session, None)
