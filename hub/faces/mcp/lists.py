"""What the hub offers, listed: page by page, and kept as served until the agents change."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import mcp_types as types
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from interhub.registry import Agent

from .catalogue import Catalogue, CatalogueMode, Catalogues, legacy_tool
from .turn import Context, principal_of

MAX_NAMED = 20
LISTS = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})

ItemT = TypeVar("ItemT", bound=BaseModel)


class Lists:
    """Serves the lists: the hub's own tools first, then what the catalogue holds for the caller."""

    def __init__(
        self,
        catalogues: Catalogues,
        own: Sequence[types.Tool],
        *,
        mode: CatalogueMode,
        search_above: int,
        page_size: int,
    ) -> None:
        self._catalogues = catalogues
        self._own = own
        self._mode: CatalogueMode = mode
        self._search_above = search_above
        self._page_size = page_size
        self._pages: dict[_Page, dict[str, Any]] = {}

    def forget(self, tenant: str) -> None:
        """Take note that a tenant's agents changed."""
        for key in [key for key in self._pages if key.tenant == tenant]:
            del self._pages[key]

    async def shortcut(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Serve a list as it was served before, and write who is there into what a client reads first.

        A list is checked and shaped once for each change of the agents; doing it for every request costs 0.2 s with a
        thousand tools.
        """
        if ctx.method in ("initialize", "server/discover"):
            result = await call_next(ctx)
            if isinstance(result, dict):
                result["instructions"] = instructions((await self._catalogues.of(principal_of(ctx))).agents)
            return result
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        ready = modern or ctx.session.client_params is not None
        cursor = (ctx.params or {}).get("cursor")
        if ctx.method not in LISTS or not ready or not isinstance(cursor, str | None):
            return await call_next(ctx)
        key = _Page(
            tenant=principal_of(ctx).tenant, method=ctx.method, version=ctx.protocol_version, cursor=cursor or ""
        )
        generation = self._catalogues.generation
        page = self._pages.get(key)
        if page is None:
            result = await call_next(ctx)
            if not isinstance(result, dict) or generation != self._catalogues.generation:
                return result
            page = self._pages[key] = result
        return dict(page)

    async def tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """Serve `tools/list`."""
        catalogue = await self._catalogues.of(principal_of(ctx))
        tools = [*self._own]
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
                return len(catalogue.tools) + len(self._own) <= self._search_above

    async def prompts(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        """Serve `prompts/list`."""
        catalogue = await self._catalogues.of(principal_of(ctx))
        page, cursor = self._page(catalogue.prompt_list, params)
        return types.ListPromptsResult(prompts=page, next_cursor=cursor)

    async def resources(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        """Serve `resources/list`."""
        catalogue = await self._catalogues.of(principal_of(ctx))
        page, cursor = self._page(catalogue.resource_list, params)
        return types.ListResourcesResult(resources=page, next_cursor=cursor)

    async def templates(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        """Serve `resources/templates/list`."""
        catalogue = await self._catalogues.of(principal_of(ctx))
        page, cursor = self._page(catalogue.template_list, params)
        return types.ListResourceTemplatesResult(resource_templates=page, next_cursor=cursor)

    def _page(
        self, items: Sequence[ItemT], params: types.PaginatedRequestParams | None
    ) -> tuple[list[ItemT], str | None]:
        start = _offset(params.cursor) if params is not None and params.cursor else 0
        end = start + self._page_size
        return list(items[start:end]), _cursor(end) if end < len(items) else None


@dataclass(frozen=True, kw_only=True)
class _Page:
    tenant: str
    method: str
    version: str
    cursor: str


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
