"""Calls that the entrance carries itself, on the direct way to an MCP server; what the two faces' shortcuts share."""

from typing import Any

import anyio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared._otel import extract_trace_context
from opentelemetry.context import Context as TraceContext

from interhub.adapters.mcp.direct import handing_over
from interhub.adapters.mcp.relay import Begun
from interhub.hub.dispatch import Pass
from interhub.hub.faces.http import RECORDED

from .entrance import Inbound

PATIENCE_S = 0.5
"""How long the entrance waits for an answer. After that the long way does, which notices a client that hangs up and
keeps its connection alive; what it costs is nothing beside the wait."""


def parent_of(inbound: Inbound) -> TraceContext | None:
    """Return the trace that a request's `_meta` names; None where it is that of its headers, which is current."""
    return extract_trace_context(inbound.meta) if "traceparent" in inbound.meta else None


async def carry(inbound: Inbound, begun: Begun, ticket: Pass | None) -> dict[str, Any] | None:
    """Wait for a result; None when it is for the long way to wait, or to say what went wrong: see `leave`."""
    if inbound.carried is not None:
        inbound.carried[inbound.session_id, inbound.id] = begun
    try:
        if await begun.settled(PATIENCE_S) and begun.result is not None:
            return begun.result
    except BaseException:
        begun.abandon()
        if ticket is not None:
            ticket.end("canceled")
        raise
    finally:
        if inbound.carried is not None:
            inbound.carried.pop((inbound.session_id, inbound.id), None)
    leave(inbound, begun, ticket)
    return None


def done(inbound: Inbound, ticket: Pass | None) -> None:
    """Note that a request went well: of a call, in the audit log, which is then what is written of it."""
    if ticket is not None:
        ticket.end("completed")
        inbound.scope["state"][RECORDED] = True


def leave(inbound: Inbound, begun: Begun, ticket: Pass | None) -> None:
    """Hand what has begun over to the long way."""
    taking_over = handing_over(begun)
    inbound.around = (taking_over,) if ticket is None else (ticket.hand_on(), taking_over)


def keeps_session(
    manager: StreamableHTTPSessionManager, session_id: str, owner: dict[str, str | None], idle_s: float
) -> bool:
    """Whether a legacy session is open and its owner's; it is then kept from ending for being idle.

    `owner` is what the SDK binds a session to. It has no public way to ask for any of this (mcp 2.3;
    tests/hub/faces/test_mcp_entrance.py holds it to it).
    """
    transport = manager._server_instances.get(session_id)  # pyright: ignore[reportPrivateUsage]  # see above
    if transport is None or transport.is_terminated:
        return False
    if manager._session_owners.get(session_id) != owner:  # pyright: ignore[reportPrivateUsage]  # see above
        return False
    idle = transport.idle_scope
    if idle is None:
        return True
    if idle.cancel_called:
        return False
    until = anyio.current_time() + idle_s
    if until - idle.deadline > 1.0:  # an infinite deadline, of a session with a request in it, stays
        idle.deadline = until
    return True
