"""What the MCP face of a single agent needs of the hub."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from opentelemetry.context import Context as TraceContext

from interhub.adapters import AdapterError, Call, Connection, ConnectionLost, Principal, ProtocolViolation
from interhub.adapters.mcp.relay import Leasable, McpRelay
from interhub.adapters.pool import Held
from interhub.hub.dispatch import Pass
from interhub.registry import Agent


class AgentHub(Protocol):
    """The verbs of `interhub.hub.service.Hub` that are used here."""

    async def agent(self, principal: Principal, agent_id: str) -> Agent:
        """Return one agent.

        Raises:
            AgentNotFound: the caller's tenant has none of that id.
        """
        ...

    async def connection(self, principal: Principal, agent_id: str) -> tuple[Agent, Connection]:
        """Return an agent and the pooled connection to it.

        Raises:
            AgentNotFound: the caller's tenant has none of that id.
            AdapterError: it could not be reached.
        """
        ...

    def hold(self, agent: Agent) -> Held | None:
        """Hold the open connection to an agent until it is released; None where none is open now."""
        ...

    def let_through(
        self, agent: Agent, call: Call, *, parent: TraceContext | None = None, trace: Mapping[str, str] | None = None
    ) -> Pass | None:
        """Let a call through that a face carries itself; None where it is not simply allowed (see `admit`)."""
        ...

    def admit(self, agent: Agent, call: Call) -> None:
        """Ask the policy about one request of a relay, and refuse what it does not allow.

        Raises:
            NotAllowed: the policy says no.
        """
        ...

    def admit_to(self, agent: Agent, principal: Principal) -> None:
        """Refuse who may use nothing of an agent.

        Raises:
            NotAllowed: the policy denies the principal the whole agent.
        """
        ...

    def is_shut_out(self, agent: Agent, principal: Principal) -> bool:
        """Whether `admit_to` would refuse."""
        ...

    async def enter(self, agent: Agent, call: Call, mark: str) -> Call:
        """Return a call as one below that whose mark the caller has brought.

        Raises:
            HubError: the mark is none, or the tree's guards stop the call.
        """
        ...

    def marked(self, agent: Agent, call: Call) -> Call:
        """Return a call of a relay with the mark that it carries to its agent."""
        ...

    def asks_first(self, agent: Agent, call: Call) -> bool:
        """Whether the policy wants a person asked before this call."""
        ...

    def under_way(self, agent: Agent, call: Call) -> AbstractAsyncContextManager[None]:
        """Count one request of a relay while the block lasts, waiting its turn first.

        Raises:
            TooManyCalls: on entering: the agent or the caller has as many under way as may be.
        """
        ...

    def fared(self, agent: Agent, error: AdapterError | None = None) -> None:
        """Note that an agent answered a request of a relay, or how that failed."""
        ...

    def record(self, agent: Agent, call: Call, *, outcome: str, started: float) -> None:
        """Append the audit record of one request of a relay; `started` is a `perf_counter()`."""
        ...

    def on_agents_changed(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Have a listener called with the tenant whenever its agents or their capabilities change."""
        ...


@asynccontextmanager
async def relay_of(hub: AgentHub, principal: Principal, agent_id: str) -> AsyncGenerator[McpRelay]:
    """Hold the connection to an MCP server. When it goes away meanwhile, the block is cancelled and left.

    Raises:
        AgentNotFound: the caller's tenant has none of that id.
        AdapterError: it could not be reached.
    """
    _, connection = await hub.connection(principal, agent_id)
    if isinstance(connection, McpRelay):
        yield connection
    elif isinstance(connection, Leasable):
        async with connection.lease() as leased:
            if not isinstance(leased, McpRelay):
                raise ProtocolViolation(agent_id, "its connection cannot relay MCP")
            yield leased
    else:
        raise ProtocolViolation(agent_id, "its connection cannot relay MCP")


def gone(agent_id: str) -> ConnectionLost:
    """Return the error of a request whose connection went away under it."""
    return ConnectionLost(agent_id, "the connection was closed during the request")
