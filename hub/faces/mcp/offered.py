"""What the hub offers, used: its own tools, and the agents' tools, prompts and resources by their catalogue names."""

from difflib import get_close_matches
from typing import cast

import mcp_types as types
import structlog
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from interhub.adapters import AdapterError, Completed, RemoteRefused, text_of
from interhub.agent_cards import JsonObject, Kind
from interhub.hub.errors import HubError, problem_of
from interhub.hub.supervisor.run import Run
from interhub.registry import RegistryError

from .calls import DirectCalls
from .catalogue import Catalogues
from .content import content_of, error_result, passed_on, skill_result, tool_result
from .large import resource_missing
from .long_calls import SKILL, TOOL, LongCalls, show_tool
from .names import resource_uri
from .tools import OwnTools, Result
from .turn import Context, Turn

Failure = (HubError, AdapterError, RegistryError)

log = structlog.get_logger()


class Offered:
    """Serves the requests that use something of what is listed."""

    def __init__(
        self, catalogues: Catalogues, own: OwnTools, calls: DirectCalls, long: LongCalls, *, question_wait_s: float
    ) -> None:
        self._catalogues = catalogues
        self._own = own
        self._calls = calls
        self._long = long
        self._question_wait_s = question_wait_s

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Result:
        """Serve `tools/call`: a failure is a result that says why, for the model to read."""
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        arguments = cast("JsonObject", params.arguments or {})
        try:
            if params.name in self._own:
                return await self._own.call(ctx, turn, params.name, arguments)
            return await self._call_offered(ctx, turn, params.name, arguments)
        except RemoteRefused as refusal:
            return error_result(str(refusal), refusal.parts)
        except Failure as failure:
            return error_result(problem_of(failure).message)
        except MCPError:
            raise
        except Exception as error:
            log.exception("mcp_call_failed", tool=params.name)
            return error_result(problem_of(error).message)

    async def _call_offered(self, ctx: Context, turn: Turn, name: str, arguments: JsonObject) -> Result:
        catalogue = await self._catalogues.of(turn.principal, turn.profile)
        entry = catalogue.tools.get(name)
        if entry is None:
            near = get_close_matches(name, [tool.name for tool in self._own.definitions] + list(catalogue.tools), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "; call `find` to see what there is"
            if turn.profile.name:
                hint = f" in the profile {turn.profile.name}{hint}"
            raise MCPError(types.INVALID_PARAMS, f"no tool is called {name!r}{hint}")
        wrong = entry.arguments.problems(arguments)
        if wrong:
            return error_result(f"{name} cannot be called like this:\n{wrong}")
        capability = entry.capability
        view = SKILL if capability.kind is Kind.SKILL else TOOL
        outcome = await self._long.call(ctx, turn, entry.agent, capability, arguments, view=view)
        if not isinstance(outcome, Completed):
            return outcome
        if capability.kind is Kind.SKILL:
            return skill_result(outcome)
        return namespaced(tool_result(outcome, turn.protocol_version), entry.agent.id)

    async def get_prompt(
        self, ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        """Serve `prompts/get`."""
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        entry = (await self._catalogues.of(turn.principal, turn.profile)).prompts.get(params.name)
        if entry is None:
            raise MCPError(types.INVALID_PARAMS, f"no prompt is called {params.name!r}")
        arguments = cast("JsonObject", params.arguments or {})
        outcome = await self._use(turn, entry.agent.id, entry.capability.name, arguments, Kind.PROMPT)
        return outcome if isinstance(outcome, types.InputRequiredResult) else prompt_result(outcome)

    async def read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        """Serve `resources/read`."""
        if (kept := await self._calls.read_kept(ctx, params.uri)) is not None:
            return kept
        turn = Turn(ctx, params, question_wait_s=self._question_wait_s)
        found = (await self._catalogues.of(turn.principal, turn.profile)).find_resource(params.uri)
        if found is None:
            raise resource_missing(ctx.protocol_version, params.uri)
        entry, variables = found
        outcome = await self._use(turn, entry.agent.id, entry.capability.name, variables, entry.capability.kind)
        if isinstance(outcome, types.InputRequiredResult):
            return outcome
        result = resource_result(outcome, params.uri)
        contents = [each.model_copy(update={"uri": resource_uri(entry.agent.id, each.uri)}) for each in result.contents]
        return result.model_copy(update={"contents": contents})

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


def namespaced(result: types.CallToolResult, agent_id: str) -> types.CallToolResult:
    """Return a tool's result with its resource links as the hub offers them, so that the client can follow them."""
    if not any(isinstance(block, types.ResourceLink) for block in result.content):
        return result
    return result.model_copy(update={"content": [_offered(block, agent_id) for block in result.content]})


def _offered(block: types.ContentBlock, agent_id: str) -> types.ContentBlock:
    # A link into the web is followed without its server; any other only through it, and so through the hub.
    if not isinstance(block, types.ResourceLink) or block.uri.startswith(("https://", "http://")):
        return block
    return block.model_copy(update={"uri": resource_uri(agent_id, block.uri)})


def show_offered_tool(run: Run) -> types.CallToolResult:
    """Show the run of a call of an offered tool as its result."""
    return namespaced(show_tool(run), run.agent_id)


def prompt_result(outcome: Completed) -> types.GetPromptResult:
    """Return what a prompt gave as a result: the server's own, or what is left of it after a run."""
    raw = dict(outcome.raw or {})
    try:
        return types.GetPromptResult.model_validate({**raw, "_meta": passed_on(raw.get("_meta"))})
    except ValidationError:
        messages = [types.PromptMessage(role="user", content=block) for block in content_of(outcome.parts)]
        return types.GetPromptResult(messages=messages)


def resource_result(outcome: Completed, uri: str) -> types.ReadResourceResult:
    """Return what was read as a result, under its server's URIs."""
    raw = dict(outcome.raw or {})
    try:
        return types.ReadResourceResult.model_validate({**raw, "_meta": passed_on(raw.get("_meta"))})
    except ValidationError:
        blocks = [block for block in content_of(outcome.parts) if isinstance(block, types.EmbeddedResource)]
        text = types.TextResourceContents(uri=uri, text=text_of(outcome.parts))
        return types.ReadResourceResult(contents=[block.resource for block in blocks] or [text])
