"""The hub as one MCP server, at `/mcp`: its own tools, and what the registered agents offer. Both eras on one route.

The era is told by the `MCP-Protocol-Version` header: absent or a handshake version means the legacy era with sessions,
2026-07-28 means the modern one, where every request stands alone.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, cast

import anyio
import mcp_types as types
import structlog
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from interhub.adapters import AdapterError, Completed, Principal, RemoteRefused, text_of
from interhub.agent_cards import JsonObject, Kind
from interhub.hub.errors import HubError, problem_of
from interhub.hub.service import Hub
from interhub.registry import Agent, RegistryError

from .calls import DirectCalls
from .catalogue import Catalogue, CatalogueMode, build, legacy_tool, resource_uri
from .changes import ChangeNotices
from .content import content_of, error_result, passed_on, skill_result, tool_result
from .tools import OwnTools
from .turn import Context, Turn, principal_of

RESOURCE_NOT_FOUND_LEGACY = -32002
"""MCP 2025-11-25, server/resources, error handling; the modern era says invalid params."""
STATE_TTL_S = 24 * 3600.0
"""How long a person may take over a question that a retried request answers."""

MAX_NAMED = 20
LISTS = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})

Failure = (HubError, AdapterError, RegistryError)
ItemT = TypeVar("ItemT", bound=BaseModel)

log = structlog.get_logger()


class HubServer(Server[object]):
    """The SDK's server, which says in the legacy era too that its lists change.

    Its HTTP transport takes the options from here and passes none:
    https://github.com/modelcontextprotocol/python-sdk `StreamableHTTPSessionManager`, 2.3.0.
    """

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Return what `initialize` answers, with `listChanged` true for all lists."""
        options = notification_options or NotificationOptions(True, True, True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> types.ServerCapabilities:
        """Return what the server can do: not that it tells of changes within a resource, which no agent tells us."""
        capabilities = super().get_capabilities(
            notification_options, experimental_capabilities, extensions, protocol_version=protocol_version
        )
        if capabilities.resources is not None:
            capabilities.resources.subscribe = False
        return capabilities


class McpFace:
    """An ASGI application that speaks MCP for the hub. Serve it inside `lifespan`."""

    def __init__(
        self,
        hub: Hub,
        *,
        state_key: bytes,
        catalogue: CatalogueMode,
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
        self._mode: CatalogueMode = catalogue
        self._search_above = search_above
        self._page_size = page_size
        self._question_wait_s = question_wait_s
        self._calls = DirectCalls(hub, timeout_s=call_timeout_s)
        self._own = OwnTools(hub, self._calls, wait_s=delegate_wait_s)
        self._generation = 0
        self._catalogues: dict[str, Catalogue] = {}
        self._pages: dict[_Page, dict[str, Any]] = {}
        self._changes = ChangeNotices()
        hint = CacheHint(ttl_ms=int(list_ttl_s * 1000), scope="private")
        self._server = HubServer(
            hub.info.name,
            version=hub.info.version,
            title="interhub",
            description="Agents and tools of any framework, behind one server.",
            cache_hints={
                "tools/list": hint,
                "prompts/list": hint,
                "resources/list": hint,
                "resources/templates/list": hint,
            },
            # What the hub lists carries no `x-mcp-header`, so there is no header to compare (see `without_headers`);
            # without this, every call would list all tools first.
            get_tool_input_schema=lambda name: None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscriptions_listen=self._changes.listen,
        )
        self._server.add_notification_handler(
            "notifications/initialized", types.NotificationParams, self._changes.initialized
        )
        security = RequestStateSecurity(keys=[state_key], ttl=STATE_TTL_S, bind_principal=_principal_key)
        self._server.middleware.append(RequestStateBoundary(security, default_audience=hub.info.name))
        self._server.middleware.append(self._shortcut)
        self._sessions = StreamableHTTPSessionManager(
            self._server,
            # Host and Origin are checked by the outer layer, once for every face.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=max_body_bytes,
            session_idle_timeout=session_idle_s,
            max_sessions=max_sessions,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. `scope["state"]["principal"]` is the caller; a legacy session is bound to it."""
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
            try:
                yield
            finally:
                forget()
                self._changes.close()
                group.cancel_scope.cancel()

    def _agents_changed(self, tenant: str) -> None:
        self._generation += 1
        self._catalogues.pop(tenant, None)
        for key in [key for key in self._pages if key.tenant == tenant]:
            del self._pages[key]
        self._changes.mark(tenant)

    async def _catalogue(self, principal: Principal) -> Catalogue:
        """Return what the caller's agents offer; built anew only after a change."""
        known = self._catalogues.get(principal.tenant)
        if known is not None:
            return known
        generation = self._generation
        catalogue = build(await self._hub.agents(principal))
        if generation == self._generation:  # else something changed while the agents were read
            self._catalogues[principal.tenant] = catalogue
        return catalogue

    # Lists

    async def _shortcut(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Serve a list as it was served before, and write who is there into what a client reads first.

        A list is checked and shaped once for each change of the agents; doing it for every request costs 0.2 s with a
        thousand tools.
        """
        if ctx.method in ("initialize", "server/discover"):
            result = await call_next(ctx)
            if isinstance(result, dict):
                result["instructions"] = instructions((await self._catalogue(principal_of(ctx))).agents)
            return result
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        ready = modern or ctx.session.client_params is not None
        cursor = (ctx.params or {}).get("cursor")
        if ctx.method not in LISTS or not ready or not isinstance(cursor, str | None):
            return await call_next(ctx)
        key = _Page(
            tenant=principal_of(ctx).tenant, method=ctx.method, version=ctx.protocol_version, cursor=cursor or ""
        )
        generation = self._generation
        page = self._pages.get(key)
        if page is None:
            result = await call_next(ctx)
            if not isinstance(result, dict) or generation != self._generation:
                return result
            page = self._pages[key] = result
        return dict(page)

    async def _list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        catalogue = await self._catalogue(principal_of(ctx))
        tools = [*self._own.definitions]
        if self._lists_all(catalogue):
            tools += catalogue.tool_list
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            tools = [legacy_tool(tool) for tool in tools]
        page, cursor = self._page(tools, params)
        return types.ListToolsResult(tools=page, next_cursor=cursor)

    def _lists_all(self, catalogue: Catalogue) -> bool:
        match self._mode:
            case "all":
                return True
            case "search":
                return False
            case "auto":
                return len(catalogue.tools) + len(self._own.definitions) <= self._search_above

    async def _list_prompts(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        catalogue = await self._catalogue(principal_of(ctx))
        page, cursor = self._page(catalogue.prompt_list, params)
        return types.ListPromptsResult(prompts=page, next_cursor=cursor)

    async def _list_resources(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        catalogue = await self._catalogue(principal_of(ctx))
        page, cursor = self._page(catalogue.resource_list, params)
        return types.ListResourcesResult(resources=page, next_cursor=cursor)

    async def _list_templates(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        catalogue = await self._catalogue(principal_of(ctx))
        page, cursor = self._page(catalogue.template_list, params)
        return types.ListResourceTemplatesResult(resource_templates=page, next_cursor=cursor)

    def _page(
        self, items: Sequence[ItemT], params: types.PaginatedRequestParams | None
    ) -> tuple[list[ItemT], str | None]:
        start = _offset(params.cursor) if params is not None and params.cursor else 0
        end = start + self._page_size
        return list(items[start:end]), _cursor(end) if end < len(items) else None

    # Use

    async def _call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        arguments = cast("JsonObject", params.arguments or {})
        try:
            if params.name in self._own:
                return await self._own.call(turn, params.name, arguments)
            return await self._call_offered(turn, params.name, arguments)
        except RemoteRefused as refusal:
            return error_result(str(refusal), refusal.parts)
        except Failure as failure:
            return error_result(problem_of(failure).message)
        except MCPError:
            raise
        except Exception as error:
            log.exception("mcp_call_failed", tool=params.name)
            return error_result(problem_of(error).message)

    async def _call_offered(
        self, turn: Turn, name: str, arguments: JsonObject
    ) -> types.CallToolResult | types.InputRequiredResult:
        catalogue = await self._catalogue(turn.principal)
        entry = catalogue.tools.get(name)
        if entry is None:
            near = get_close_matches(name, [tool.name for tool in self._own.definitions] + list(catalogue.tools), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "; call `find` to see what there is"
            raise MCPError(types.INVALID_PARAMS, f"no tool is called {name!r}{hint}")
        wrong = entry.arguments.problems(arguments)
        if wrong:
            return error_result(f"{name} cannot be called like this:\n{wrong}")
        capability = entry.capability
        outcome = await self._calls.call(turn, entry.agent.id, capability.name, arguments, kind=capability.kind)
        if isinstance(outcome, types.InputRequiredResult):
            return outcome
        if capability.kind is Kind.SKILL:
            return skill_result(outcome)
        return _namespaced(tool_result(outcome, turn.protocol_version), entry.agent.id)

    async def _get_prompt(
        self, ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        entry = (await self._catalogue(turn.principal)).prompts.get(params.name)
        if entry is None:
            raise MCPError(types.INVALID_PARAMS, f"no prompt is called {params.name!r}")
        arguments = cast("JsonObject", params.arguments or {})
        outcome = await self._use(turn, entry.agent.id, entry.capability.name, arguments, Kind.PROMPT)
        if isinstance(outcome, types.InputRequiredResult):
            return outcome
        try:
            raw = dict(outcome.raw or {})
            return types.GetPromptResult.model_validate({**raw, "_meta": passed_on(raw.get("_meta"))})
        except ValidationError:
            messages = [types.PromptMessage(role="user", content=block) for block in content_of(outcome.parts)]
            return types.GetPromptResult(messages=messages)

    async def _read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        found = (await self._catalogue(turn.principal)).find_resource(params.uri)
        if found is None:
            modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
            code = types.INVALID_PARAMS if modern else RESOURCE_NOT_FOUND_LEGACY
            raise MCPError(code, f"no resource is at {params.uri}", {"uri": params.uri})
        entry, variables = found
        outcome = await self._use(turn, entry.agent.id, entry.capability.name, variables, entry.capability.kind)
        if isinstance(outcome, types.InputRequiredResult):
            return outcome
        return _contents(outcome, params.uri, entry.agent.id)

    async def _use(
        self, turn: Turn, agent_id: str, capability: str, arguments: JsonObject, kind: Kind
    ) -> Completed | types.InputRequiredResult:
        try:
            return await self._calls.call(turn, agent_id, capability, arguments, kind=kind)
        except RemoteRefused as refusal:
            raise MCPError(refusal.code or types.INTERNAL_ERROR, str(refusal)) from refusal
        except Failure as failure:
            problem = problem_of(failure)
            raise MCPError(problem.status.jsonrpc, problem.message) from failure


@dataclass(frozen=True, kw_only=True)
class _Page:
    tenant: str
    method: str
    version: str
    cursor: str


def mcp_face(
    hub: Hub,
    *,
    state_key: bytes,
    catalogue: CatalogueMode = "auto",
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
    question: with the same key, a restarted hub or a replica takes it back.
    """
    return McpFace(
        hub,
        state_key=state_key,
        catalogue=catalogue,
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


def instructions(agents: Sequence[Agent]) -> str:
    """Say, for a model, what the hub is and how to use it; names the teams and workflows."""
    lines = [
        "interhub connects you to agents and tools of any framework.",
        "`delegate` hands a goal to them as durable work that survives a disconnect; `run_result` gets the result.",
        "`find` says who can meet a need; `call` uses one capability directly.",
        "When a result holds questions, ask the user and pass the reply to `answer`; never answer for them.",
    ]
    for adapter, noun in (("team", "Teams"), ("workflow", "Workflows")):
        named = [_line(agent) for agent in agents if agent.adapter == adapter]
        if named:
            lines.append(f"{noun} (give their id to `delegate` as `agent`):")
            lines += named[:MAX_NAMED]
            if len(named) > MAX_NAMED:
                lines.append(f"- and {len(named) - MAX_NAMED} more: see `find`")
    return "\n".join(lines)


def _line(agent: Agent) -> str:
    about = " ".join(agent.card.description.split())
    return f"- {agent.id}: {about[:160]}" if about else f"- {agent.id}"


def _principal_key(ctx: Context) -> str:
    return principal_of(ctx).key


def _cursor(offset: int) -> str:
    return urlsafe_b64encode(str(offset).encode()).decode().rstrip("=")


def _offset(cursor: str) -> int:
    try:
        offset = int(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (BadBase64, ValueError) as error:
        raise MCPError(types.INVALID_PARAMS, "this cursor is none of ours; list from the start") from error
    if offset < 0:
        raise MCPError(types.INVALID_PARAMS, "this cursor is none of ours; list from the start")
    return offset


def _namespaced(result: types.CallToolResult, agent_id: str) -> types.CallToolResult:
    """Return a tool's result with its resource links as the hub offers them, so that the client can follow them."""
    if not any(isinstance(block, types.ResourceLink) for block in result.content):
        return result
    return result.model_copy(update={"content": [_offered(block, agent_id) for block in result.content]})


def _offered(block: types.ContentBlock, agent_id: str) -> types.ContentBlock:
    # A link into the web is followed without its server; any other only through it, and so through the hub.
    if not isinstance(block, types.ResourceLink) or block.uri.startswith(("https://", "http://")):
        return block
    return block.model_copy(update={"uri": resource_uri(agent_id, block.uri)})


def _contents(outcome: Completed, uri: str, agent_id: str) -> types.ReadResourceResult:
    """Return what was read, under the URIs that the hub offers it at."""
    raw = dict(outcome.raw or {})
    try:
        result = types.ReadResourceResult.model_validate({**raw, "_meta": passed_on(raw.get("_meta"))})
    except ValidationError:
        blocks = [block for block in content_of(outcome.parts) if isinstance(block, types.EmbeddedResource)]
        return types.ReadResourceResult(
            contents=[
                *(block.resource for block in blocks),
                *([] if blocks else [types.TextResourceContents(uri=uri, text=text_of(outcome.parts))]),
            ]
        )
    contents = [each.model_copy(update={"uri": resource_uri(agent_id, each.uri)}) for each in result.contents]
    return result.model_copy(update={"contents": contents})
