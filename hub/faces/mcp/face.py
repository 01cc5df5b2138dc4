"""The hub as one MCP server, at `/mcp`: its own tools, and what the registered agents offer. Both eras on one route.

The era is told by the `MCP-Protocol-Version` header: absent or a handshake version means the legacy era with sessions,
2026-07-28 means the modern one, where every request stands alone.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn

import anyio
import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from starlette.types import Receive, Scope, Send

from interhub.adapters import Principal
from interhub.hub.errors import BadRequest
from interhub.hub.faces.http import Admitted
from interhub.hub.faces.refusals import refusal
from interhub.hub.service import Hub
from interhub.hub.wire import Answer, Going

from .calls import DirectCalls
from .carried import keeps_session
from .catalogue import Catalogues
from .changes import ChangeNotices
from .direct_tools import DirectTools
from .entrance import McpEntrance
from .inbound import Caller, Inbound, Shortcut
from .listed import KEYS
from .lists import Lists
from .long_calls import SKILL, TOOL, LongCalls, show_skill
from .offered import Offered, show_offered_tool
from .profiles import HEADER, Profiles
from .sealing import sealing
from .server import ChangingServer
from .tasks import RunTasks
from .tools import OwnTools, whole
from .turn import Context


class McpFace:
    """An ASGI application that speaks MCP for the hub. Serve it inside `lifespan`."""

    def __init__(
        self,
        hub: Hub,
        *,
        state_key: bytes,
        profiles: Profiles,
        search_above: int,
        page_size: int,
        delegate_wait_s: float,
        question_wait_s: float,
        call_timeout_s: float | None,
        list_ttl_s: float,
        max_body_bytes: int,
        session_idle_s: float,
        max_sessions: int,
    ) -> None:
        self._hub = hub
        self._profiles = profiles
        self._catalogues = Catalogues(hub)
        calls = DirectCalls(hub, timeout_s=call_timeout_s)
        tasks = RunTasks(hub, {"": whole, SKILL: show_skill, TOOL: show_offered_tool})
        long = LongCalls(calls, tasks)
        own = OwnTools(hub, long, tasks, wait_s=delegate_wait_s)
        offered = Offered(self._catalogues, own, calls, long, question_wait_s=question_wait_s)
        self._changes = ChangeNotices()
        self._server = ChangingServer(
            hub.info.name,
            version=hub.info.version,
            title="interhub",
            description="Agents and tools of any framework, behind one server.",
            # What the hub lists carries no `x-mcp-header`, so there is no header to compare (see `without_headers`);
            # without this, every call would list all tools first.
            get_tool_input_schema=lambda name: None,
            on_list_tools=_listed_before,
            on_list_prompts=_listed_before,
            on_get_prompt=offered.get_prompt,
            on_list_resources=_listed_before,
            on_list_resource_templates=_listed_before,
            on_read_resource=offered.read_resource,
            on_subscriptions_listen=tasks.listening(self._changes.listen),
        )
        self._lists = Lists(
            self._catalogues,
            own.definitions,
            search_above=search_above,
            page_size=page_size,
            ttl_s=list_ttl_s,
            server_info=self._server.server_info_stamp,
        )
        # Not by the constructor, whose type knows no results of extensions.
        self._server.add_request_handler("tools/call", types.CallToolRequestParams, offered.call_tool)
        tasks.serve(self._server)
        self._server.add_notification_handler(
            "notifications/initialized", types.NotificationParams, self._changes.initialized
        )
        self._server.middleware.append(sealing(state_key, audience=hub.info.name))
        self._server.middleware.append(self._lists.middleware)
        self._sessions = StreamableHTTPSessionManager(
            self._server,
            # Host and Origin are checked by the outer layer, once for every face.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=max_body_bytes,
            session_idle_timeout=session_idle_s,
            max_sessions=max_sessions,
        )
        self._session_idle_s = session_idle_s
        shortcuts: dict[str, Shortcut] = dict.fromkeys(KEYS, self._listed)
        shortcuts["tools/call"] = DirectTools(
            hub,
            self._catalogues,
            own,
            self._sessions,
            session_idle_s=session_idle_s,
            call_timeout_s=call_timeout_s,
            server_info=self._server.server_info_stamp,
        ).__call__
        self._entrance = McpEntrance(self._serve, shortcuts, max_body_bytes=max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. `scope["state"]["principal"]` is the caller; a legacy session is bound to it."""
        principal: Principal = scope["state"]["principal"]
        chosen = next((value for name, value in scope["headers"] if name == HEADER), None)
        try:
            profile = self._profiles.chosen(scope.get("query_string", b""), chosen, principal)
        except BadRequest as error:
            await refusal(scope, error)(scope, receive, send)
            return
        scope["state"]["profile"] = profile
        await self._entrance(scope, receive, send, Caller(principal, profile=profile))

    def short(self, admitted: Admitted) -> Answer | Going | None:
        """Serve a request past ASGI, or leave it."""
        request, principal = admitted.request, admitted.principal
        try:
            profile = self._profiles.chosen(request.query, request.headers.get(HEADER), principal)
        except BadRequest:
            return None
        caller = Caller(principal, "", profile, admitted.trace)
        return self._entrance.short(caller, request.headers, request.body, admitted.fields)

    def _listed(self, inbound: Inbound) -> bytes | None:
        """Answer a list request at the entrance, to a legacy client in a session of its own only."""
        if not inbound.modern:
            principal = inbound.principal
            owner = principal.tenant, principal.subject
            if not keeps_session(self._sessions, inbound.session_id, owner, self._session_idle_s):
                return None
        return self._lists.shortcut(inbound)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with the SDK's server."""
        principal: Principal = scope["state"]["principal"]
        token = AccessToken(
            token="", client_id=principal.tenant, subject=principal.subject, scopes=sorted(principal.scopes)
        )
        # httptools leaves the blanks around a header's value, which are no part of it (RFC 9110, section 5.5).
        headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        await self._sessions.asgi_app({**scope, "user": AuthenticatedUser(token), "headers": headers}, receive, send)

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Return what must be entered, once, while requests are served; enter and exit it in the same task."""
        return self._lifespan()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        forget = self._hub.on_agents_changed(self._agents_changed)
        async with self._sessions.run(), anyio.create_task_group() as group:
            group.start_soon(self._changes.run)
            group.start_soon(self._lists.run)
            try:
                yield
            finally:
                forget()
                self._changes.close()
                group.cancel_scope.cancel()

    def _agents_changed(self, tenant: str) -> None:
        self._catalogues.forget(tenant)
        self._lists.forget(tenant)
        self._changes.mark(tenant)


def mcp_face(
    hub: Hub,
    *,
    state_key: bytes,
    profiles: Profiles | None = None,
    search_above: int = 40,
    page_size: int = 1000,
    delegate_wait_s: float = 50.0,
    question_wait_s: float = 600.0,
    call_timeout_s: float | None = None,
    list_ttl_s: float = 60.0,
    max_body_bytes: int = 16 * 1024 * 1024,
    session_idle_s: float = 1800.0,
    max_sessions: int = 10_000,
) -> McpFace:
    """Return the ASGI application for `/mcp`; the outer layer must have put the caller into `scope["state"]`.

    `state_key` (at least 32 bytes, kept in the data directory) seals what modern clients carry between the rounds of a
    question: with the same key, a restarted hub or a replica takes it back. `profiles` say what clients are shown.
    """
    return McpFace(
        hub,
        state_key=state_key,
        profiles=profiles or Profiles(),
        search_above=search_above,
        page_size=page_size,
        delegate_wait_s=delegate_wait_s,
        question_wait_s=question_wait_s,
        call_timeout_s=call_timeout_s,
        list_ttl_s=list_ttl_s,
        max_body_bytes=max_body_bytes,
        session_idle_s=session_idle_s,
        max_sessions=max_sessions,
    )


async def _listed_before(ctx: Context, params: types.PaginatedRequestParams | None) -> NoReturn:
    """Stand for the lists, so that the server says that it has them: the middleware has served them before."""
    raise MCPError(types.INVALID_PARAMS, "this list request is not in order")
