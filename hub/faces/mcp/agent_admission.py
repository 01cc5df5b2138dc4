"""Who may use nothing of an agent finds its endpoint closed: no session is opened there, and nothing listed."""

from collections.abc import Callable

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware
from mcp.server.lowlevel.server import Server

from interhub.registry import Agent

from .agent_hub import AgentHub
from .agent_relay import USES
from .agent_wire import OURS, Context, said
from .turn import principal_of

_DECIDED = frozenset({*USES, "ping"})
"""What the policy is asked about by itself, and what tells nothing."""


def guard(server: Server[object], hub: AgentHub, agent: Callable[[], Agent]) -> None:
    """Have a server of the SDK refuse who is shut out of an agent, before anything else is done.

    A use of a capability is left to those who ask the policy about it, and record what it says.
    """

    async def admit(ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.request_id is not None and ctx.method not in _DECIDED:
            try:
                hub.admit_to(agent(), principal_of(ctx))
            except OURS as error:
                raise said(error) from error
        return await call_next(ctx)

    guarded: ServerMiddleware[object] = admit
    server.middleware.insert(0, guarded)
