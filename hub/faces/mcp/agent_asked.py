"""A call of an MCP server's tool that a person must approve first: no request to relay, but a run that asks."""

from typing import Any

import mcp_types as types

from interhub.adapters import AdapterError, Call, Completed, RemoteRefused
from interhub.registry import Agent

from .agent_wire import Context, params_of
from .calls import DirectCalls
from .content import error_result, tool_result
from .turn import Turn


async def asked_call(
    ctx: Context, calls: DirectCalls, agent: Agent, call: Call, *, question_wait_s: float
) -> dict[str, Any]:
    """Put the question to the client, in its era's way, and return what the call then gave.

    Raises:
        HubError, RegistryError: the hub refuses.
    """
    params = types.CallToolRequestParams.model_validate(params_of(ctx), by_name=False)
    turn = Turn(ctx, params, question_wait_s=question_wait_s)
    result: types.CallToolResult | types.InputRequiredResult
    try:
        outcome = await calls.call(turn, agent.id, call.capability, call.arguments, kind=call.kind)
        result = tool_result(outcome, ctx.protocol_version) if isinstance(outcome, Completed) else outcome
    except RemoteRefused as refused:
        result = error_result(str(refused), refused.parts)
    except AdapterError as error:
        result = error_result(str(error))
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)
