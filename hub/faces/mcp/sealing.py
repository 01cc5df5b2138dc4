"""What modern clients keep for a server between the rounds of a question: sealed, and bound to who, whom and what."""

from hashlib import sha256

from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity

from interhub.registry import Agent

from .turn import Context, principal_of

STATE_TTL_S = 24 * 3600.0
"""How long a person may take over a question that a retried request answers."""


def sealing(state_key: bytes, *, audience: str) -> RequestStateBoundary:
    """Return the middleware that seals every `requestState` that leaves, and opens what comes back.

    It is sealed with AES-256-GCM under `state_key` (32 bytes or more, shared by replicas) and bound to the principal,
    the method, the name or URI, the arguments, the `audience` and the time (MCP 2026-07-28, multi round-trip requests,
    security). What was changed, is another's or is too old is refused with -32602, before anything else is done.
    """
    security = RequestStateSecurity(keys=[state_key], ttl=STATE_TTL_S, bind_principal=_principal_key)
    return RequestStateBoundary(security, default_audience=audience)


def audience_of(agent: Agent) -> str:
    """Return what states of an agent are bound to: the agent, and where it is, lest another come by what it said."""
    endpoint = agent.endpoint
    place = "\0".join((endpoint.binding.value, endpoint.url, *endpoint.command))
    return f"{agent.tenant}/{agent.id}/{sha256(place.encode()).hexdigest()[:32]}"


def _principal_key(ctx: Context) -> str:
    # The SDK's own way looks for a token that only its own middleware sets.
    return principal_of(ctx).key
