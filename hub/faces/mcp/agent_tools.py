"""Any agent that is no MCP server, over MCP: its capabilities as tools, under their own names."""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

import mcp_types as types
import structlog
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError

from interhub.adapters import AdapterError, Completed, RemoteRefused
from interhub.adapters.schemas import ArgumentCheck
from interhub.agent_cards import Capability, JsonObject, Kind, visible, visible_json
from interhub.hub.errors import HubError
from interhub.registry import Agent

from .agent_wire import OURS, Context, said
from .calls import DirectCalls
from .content import SKILL_OUTPUT_SCHEMA, error_result, skill_result, tool_result
from .large import resource_missing
from .long_calls import SKILL, TOOL, LongCalls, show_skill, show_tool
from .sealing import audience_of, sealing
from .server import ChangingServer
from .tasks import RunHub, RunTasks
from .tools import Result
from .turn import Turn

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_OFFERED = (Kind.SKILL, Kind.TOOL)

log = structlog.get_logger()


class AgentTools:
    """An agent as an MCP server of the SDK."""

    def __init__(
        self, calls: DirectCalls, agent: Agent, *, state_key: bytes, question_wait_s: float, runs: RunHub | None = None
    ) -> None:
        """Take what puts calls to the agent; with `runs`, those that take long are tasks."""
        tasks = RunTasks(runs, {SKILL: show_skill, TOOL: show_tool}, agent_id=agent.id) if runs is not None else None
        self._calls = LongCalls(calls, tasks)
        self._kept = calls
        self._question_wait_s = question_wait_s
        self._bus = InMemorySubscriptionBus()
        self._sessions: dict[int, Callable[[], Any]] = {}
        self.agent = agent
        self._tools: dict[str, Capability] = {}
        self._checks: dict[str, ArgumentCheck] = {}
        self._definitions: list[types.Tool] = []
        self._list()
        listen = ListenHandler(self._bus)
        self.server = ChangingServer(
            agent.id,
            version=agent.card.version,
            title=visible(agent.card.name),
            description=visible(agent.card.description) or None,
            instructions=visible(agent.card.instructions or agent.card.description) or None,
            on_list_tools=self._list_tools,
            on_list_resources=self._list_resources,
            on_read_resource=self._read_resource,
            on_subscriptions_listen=tasks.listening(listen) if tasks is not None else listen,
            get_tool_input_schema=self._input_schema,
        )
        # Not by the constructor, whose type knows no results of extensions.
        self.server.add_request_handler("tools/call", types.CallToolRequestParams, self._call_tool)
        if tasks is not None:
            tasks.serve(self.server)
        self.server.add_notification_handler("notifications/initialized", types.NotificationParams, self._greeted)
        self.server.middleware.append(sealing(state_key, audience=audience_of(agent)))

    async def update(self, agent: Agent) -> None:
        """Take the agent as it is now, and tell those who listen when its tools are others."""
        changed = agent.digest != self.agent.digest
        self.agent = agent
        if not changed:
            return
        self._list()
        await self._bus.publish(ToolsListChanged())
        for tell in list(self._sessions.values()):
            await tell()

    def _list(self) -> None:
        self._checks.clear()
        self._tools = tool_names(self.agent)
        self._definitions = [_tool(name, capability) for name, capability in self._tools.items()]

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        capability = self._tools.get(name)
        return dict(capability.input_schema) if capability is not None else None

    async def _greeted(self, ctx: Context, params: types.NotificationParams | None) -> None:
        connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]  # see mcp_agent_relay
        self._sessions[id(connection)] = ctx.session.send_tool_list_changed
        connection.exit_stack.callback(self._sessions.pop, id(connection), None)

    async def _list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=self._definitions, ttl_ms=5000, cache_scope="private")

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Result:
        capability = self._tools.get(params.name)
        if capability is None:
            raise MCPError(types.INVALID_PARAMS, f"agent {self.agent.id} has no tool {params.name!r}")
        arguments = params.arguments or {}
        if problems := self._check(params.name, capability).problems(arguments):
            return error_result(problems)
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        try:
            view = SKILL if capability.kind is Kind.SKILL else TOOL
            outcome = await self._calls.call(ctx, turn, self.agent, capability, arguments, view=view)
        except RemoteRefused as refused:
            return error_result(str(refused), refused.parts)
        except (AdapterError, HubError) as error:
            return error_result(str(error))
        except OURS as error:
            raise said(error) from error
        if not isinstance(outcome, Completed):
            return outcome
        if capability.kind is Kind.SKILL:
            return skill_result(outcome)
        return tool_result(outcome, ctx.protocol_version)

    async def _list_resources(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[], ttl_ms=5000, cache_scope="private")

    async def _read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        """Read what a large answer left out: there are no other resources here."""
        if (kept := await self._kept.read_kept(ctx, params.uri)) is not None:
            return kept
        raise resource_missing(ctx.protocol_version, params.uri)

    def _check(self, name: str, capability: Capability) -> ArgumentCheck:
        check = self._checks.get(name)
        if check is None:
            check = self._checks[name] = ArgumentCheck(capability.input_schema, label=name)
        return check


def tool_names(agent: Agent) -> dict[str, Capability]:
    """Return an agent's capabilities by the names of their tools.

    A name that MCP tools cannot have (MCP 2026-07-28, server/tools, tool names) is changed, and made unique by a hash.
    """
    named: dict[str, Capability] = {}
    for capability in agent.card.capabilities:
        if capability.kind not in _OFFERED:
            continue
        name = capability.name
        if _NAME.fullmatch(name) is None or name in named:
            mark = sha256(f"{capability.kind}/{name}".encode()).hexdigest()[:8]
            name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:55].strip('-') or 'tool'}-{mark}"
        named[name] = capability
    return named


def _tool(name: str, capability: Capability) -> types.Tool:
    lines = [capability.description or capability.title or capability.name]
    if capability.examples:
        lines.append("For example: " + "; ".join(capability.examples[:3]))
    output = SKILL_OUTPUT_SCHEMA if capability.kind is Kind.SKILL else capability.output_schema
    return types.Tool(
        name=name,
        title=visible(capability.title) or None,
        description=visible("\n".join(lines)),
        input_schema=_shown(capability.input_schema),
        output_schema=_shown(output) if output is not None else None,
    )


def _shown(schema: JsonObject) -> dict[str, Any]:
    return cast("dict[str, Any]", visible_json(schema))
