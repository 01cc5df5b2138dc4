"""A use of an MCP server that a person must approve first: no request to relay, but a run that asks."""

from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from interhub.adapters import AdapterError, Call, Completed, RemoteRefused
from interhub.agent_cards import Kind
from interhub.registry import Agent

from .agent_wire import Context, params_of
from .calls import DirectCalls
from .content import error_result, tool_result
from .offered import prompt_result, resource_result
from .turn import Turn

_PARAMS: dict[Kind, type[types.InputResponseRequestParams]] = {
    Kind.TOOL: types.CallToolRequestParams,
    Kind.PROMPT: types.GetPromptRequestParams,
    Kind.RESOURCE: types.ReadResourceRequestParams,
}


def is_askable(agent: Agent, call: Call) -> bool:
    """Whether a call can be made as a run. Not what is read by a template: the rule was about the address itself."""
    return call.kind is not Kind.RESOURCE or agent.card.capability(call.capability, Kind.RESOURCE) is not None


async def asked_call(
    ctx: Context, calls: DirectCalls, agent: Agent, call: Call, *, question_wait_s: float
) -> dict[str, Any]:
    """Put the question to the client, in its era's way, and return what the call then gave.

    Raises:
        HubError, RegistryError: the hub refuses.
        MCPError: a prompt or a resource was refused, or could not be had.
    """
    params = _PARAMS[call.kind].model_validate(params_of(ctx), by_name=False)
    turn = Turn(ctx, params, question_wait_s=question_wait_s)
    result: types.Result
    try:
        outcome = await calls.call(turn, agent.id, call.capability, call.arguments, kind=call.kind)
        result = _shown(outcome, call, ctx) if isinstance(outcome, Completed) else outcome
    except AdapterError as error:
        if call.kind is not Kind.TOOL:
            code = error.code if isinstance(error, RemoteRefused) else None
            raise MCPError(code or types.INTERNAL_ERROR, str(error)) from error
        result = error_result(str(error), error.parts if isinstance(error, RemoteRefused) else ())
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


def _shown(outcome: Completed, call: Call, ctx: Context) -> types.Result:
    match call.kind:
        case Kind.PROMPT:
            return prompt_result(outcome)
        case Kind.RESOURCE:
            return resource_result(outcome, call.capability)
        case _:
            return tool_result(outcome, ctx.protocol_version)
