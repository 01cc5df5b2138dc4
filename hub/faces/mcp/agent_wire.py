"""Raw MCP messages through the SDK's session, and the hub's errors as JSON-RPC errors."""

from collections.abc import Mapping
from typing import Any, cast

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict

from interhub.adapters import AdapterError
from interhub.agent_cards import JsonObject
from interhub.hub.errors import HubError, problem_of
from interhub.registry import RegistryError

Context = ServerRequestContext[Any, Any]
RESERVED = "io.modelcontextprotocol/"
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"

RawRequest = types.Request[dict[str, Any], str]
RawNotification = types.Notification[dict[str, Any], str]


class RawResult(types.Result):
    """A result of which every member is kept."""

    model_config = ConfigDict(extra="allow")


def params_of(ctx: Context) -> dict[str, Any]:
    """Return a request's parameters as they came."""
    return dict(ctx.params or {})


def meta_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `_meta` of parameters or of a result; empty when there is none."""
    meta = params.get("_meta")
    return dict(cast("Mapping[str, Any]", meta)) if isinstance(meta, Mapping) else {}


def is_modern(ctx: Context) -> bool:
    """Whether a request is of the era without a handshake."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


async def tell(ctx: Context, method: str, params: JsonObject) -> None:
    """Send a notification that belongs to a request, on its own stream, under the client's tokens."""
    said = dict(cast("Mapping[str, Any]", params))
    if method == "notifications/progress":
        token = meta_of(params_of(ctx)).get("progressToken")
        if token is None:
            return
        said["progressToken"] = token
    meta = meta_of(said)
    if SUBSCRIPTION_ID in meta:
        said["_meta"] = {**meta, SUBSCRIPTION_ID: ctx.request_id}
    note = RawNotification(method=method, params=said)
    await ctx.session.send_notification(cast("types.ServerNotification", note), ctx.request_id)


async def tell_session(ctx: Context, method: str, params: JsonObject) -> None:
    """Send a notification that belongs to no request, to a client of the older era."""
    note = RawNotification(method=method, params=dict(cast("Mapping[str, Any]", params)))
    await ctx.session.send_notification(cast("types.ServerNotification", note))


async def ask(ctx: Context, method: str, params: JsonObject, *, within: bool = True) -> dict[str, Any]:
    """Ask a client of the older era something: within the request being served, on its stream, or on the session's.

    Raises:
        MCPError: it answered with an error, or cannot be asked.
    """
    request = RawRequest(method=method, params=dict(cast("Mapping[str, Any]", params)))
    metadata = ServerMessageMetadata(related_request_id=ctx.request_id) if within else None
    answer = await ctx.session.send_request(cast("types.ServerRequest", request), RawResult, metadata=metadata)
    return answer.model_dump(by_alias=True, mode="json", exclude_unset=True)


def said(error: Exception) -> MCPError:
    """Return the JSON-RPC error that says one of ours; what is one already stays."""
    if isinstance(error, MCPError):
        return error
    problem = problem_of(error)
    data: dict[str, Any] = {"reason": problem.status.reason, **problem.details}
    return MCPError(problem.status.jsonrpc, problem.message, data)


OURS = (AdapterError, HubError, RegistryError)
"""What `said` is for; anything else is a fault of the hub, which the SDK hides and logs."""
