"""What the shortcuts of the two faces share."""

import asyncio

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared._otel import extract_trace_context
from opentelemetry.context import Context as TraceContext

from .inbound import Inbound


def parent_of(inbound: Inbound) -> TraceContext | None:
    """Return the trace that a request's `_meta` names; None where it is that of its headers."""
    if "traceparent" not in inbound.meta:
        return None
    try:
        return extract_trace_context(inbound.meta)
    except AttributeError:  # of a baggage or a state that is no text, which the SDK does not look for
        return None


def keeps_session(
    manager: StreamableHTTPSessionManager, session_id: str, owner: tuple[str, str], idle_s: float
) -> bool:
    """Whether a legacy session is open and its owner's; it is then kept from ending for being idle.

    `owner` is the client and the subject that the SDK binds a session to. It has no public way to ask for any of this
    (mcp 2.3; tests/hub/faces/test_mcp_entrance.py holds it to it).
    """
    transport = manager._server_instances.get(session_id)  # pyright: ignore[reportPrivateUsage]  # see above
    if transport is None or transport.is_terminated:
        return False
    client_id, subject = owner
    bound = {"client_id": client_id, "issuer": None, "subject": subject}
    if manager._session_owners.get(session_id) != bound:  # pyright: ignore[reportPrivateUsage]  # see above
        return False
    idle = transport.idle_scope
    if idle is None:
        return True
    if idle.cancel_called:
        return False
    until = asyncio.get_running_loop().time() + idle_s  # as the scope counts
    if until - idle.deadline > 1.0:  # an infinite deadline, of a session with a request in it, stays
        idle.deadline = until
    return True
