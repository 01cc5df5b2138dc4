"""The MCP face of single agents, with as little hub behind it as there can be: a pool, and a dictionary of agents."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, cast

from mcp.server.transport_security import TransportSecuritySettings
from opentelemetry.context import Context
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from interhub.adapters import Adapter, AdapterError, Call, Connection, Outcome, Principal, Report
from interhub.adapters.mcp import McpAdapter
from interhub.adapters.pool import ConnectionPool, ConnectionState, Held, PoolKey
from interhub.agent_cards import AgentCard, Endpoint
from interhub.hub.dispatch import Pass
from interhub.hub.errors import NotAllowed
from interhub.hub.faces.mcp import DirectCalls, McpAgentFace
from interhub.hub.service import Hub
from interhub.registry import Agent, AgentNotFound
from tests.support.mcp_servers import serving

LOOPBACK = TransportSecuritySettings(
    enable_dns_rebinding_protection=True,
    allowed_hosts=["127.0.0.1:*", "localhost:*"],
    allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
)


class SmallHub:
    """An AgentHub over a pool."""

    def __init__(self, pool: ConnectionPool, adapters: Mapping[str, Adapter]) -> None:
        self._pool = pool
        self._adapters = adapters
        self.agents: dict[str, Agent] = {}
        self.denied: set[str] = set()
        """Capabilities that the policy denies."""
        self.shut_out: set[str] = set()
        """Callers whom the policy denies every agent."""
        self.records: list[tuple[str, str, str]] = []
        """Who used which capability, and how it ended."""
        self._listeners: list[Callable[[str], None]] = []

    async def add(self, agent_id: str, adapter: str, endpoint: Endpoint, card: AgentCard | None = None) -> Agent:
        described = card or await self._adapters[adapter].describe(endpoint)
        now = datetime.now(UTC)
        agent = Agent(
            id=agent_id,
            adapter=adapter,
            card=described,
            endpoint=endpoint,
            digest=f"sha256:{hash(repr(described.capabilities))}",
            created_at=now,
            updated_at=now,
        )
        self.agents[agent_id] = agent
        for listener in self._listeners:
            listener(agent.tenant)
        return agent

    def connections(self) -> tuple[ConnectionState, ...]:
        return self._pool.states()

    def remove(self, agent_id: str) -> None:
        agent = self.agents.pop(agent_id)
        for listener in self._listeners:
            listener(agent.tenant)

    async def agent(self, principal: Principal, agent_id: str) -> Agent:
        try:
            return self.agents[agent_id]
        except KeyError:
            raise AgentNotFound(agent_id) from None

    async def connection(self, principal: Principal, agent_id: str) -> tuple[Agent, Connection]:
        agent = await self.agent(principal, agent_id)
        adapter = self._adapters[agent.adapter]
        opener = lambda: adapter.connect(agent.endpoint, card=agent.card, label=agent.id)  # noqa: E731
        return agent, await self._pool.get(self._key(agent), opener, card=agent.card)

    def _key(self, agent: Agent) -> PoolKey:
        return PoolKey(credential=agent.tenant, agent=agent.id)

    async def call(
        self, principal: Principal, agent_id: str, capability: str, *, report: Report, **more: Any
    ) -> Outcome:
        agent, connection = await self.connection(principal, agent_id)
        more["kind"] = more["kind"] or agent.card.capabilities[0].kind
        call = Call(capability=capability, principal=principal, **more)
        return await connection.call(call, report)

    def hold(self, agent: Agent) -> Held | None:
        return self._pool.hold(self._key(agent))

    def let_through(
        self, agent: Agent, call: Call, *, parent: Context | None = None, trace: Mapping[str, str] | None = None
    ) -> Pass | None:
        def ended(agent: Agent, call: Call, outcome: str, started: float) -> None:
            self.record(agent, call, outcome=outcome, started=started)

        return None if call.capability in self.denied else Pass(agent, call, "", ended, parent, carrier=trace)

    def admit(self, agent: Agent, call: Call) -> None:
        if call.capability in self.denied:
            raise NotAllowed(f"{call.capability} of agent {agent.id}", "the test says so")

    def admit_to(self, agent: Agent, principal: Principal) -> None:
        if principal.subject in self.shut_out:
            raise NotAllowed(f"any use of agent {agent.id}", "the test says so")

    def is_shut_out(self, agent: Agent, principal: Principal) -> bool:
        return principal.subject in self.shut_out

    async def enter(self, agent: Agent, call: Call, mark: str) -> Call:
        return call

    def marked(self, agent: Agent, call: Call) -> Call:
        return call

    def under_way(self, agent: Agent, call: Call) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def asks_first(self, agent: Agent, call: Call) -> bool:
        return False

    def fared(self, agent: Agent, error: AdapterError | None = None) -> None:
        """Take no note of it."""

    def record(self, agent: Agent, call: Call, *, outcome: str, started: float) -> None:
        self.records.append((call.principal.subject, call.capability, outcome))

    def on_agents_changed(self, listener: Callable[[str], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def authenticated(app: ASGIApp) -> ASGIApp:
    """Take the caller's name from `Authorization: Bearer NAME`, in the place of the outer layer."""

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            name = headers.get(b"authorization", b"Bearer tester").decode().removeprefix("Bearer ")
            scope["state"] = {**scope.get("state", {}), "principal": Principal(subject=name)}
        await app(scope, receive, send)

    return outer


@asynccontextmanager
async def small_hub(adapters: Mapping[str, Adapter], **options: Any) -> AsyncGenerator[tuple[SmallHub, str]]:
    """Serve the face of single agents; yields the hub and its address."""
    async with ConnectionPool() as pool:
        hub = SmallHub(pool, adapters)
        # DirectCalls uses the hub's verb `call` alone.
        face = McpAgentFace(hub, DirectCalls(cast(Hub, hub)), security=LOOPBACK, **options)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncGenerator[None]:
            async with face.running():
                yield

        app = Starlette(routes=[Route("/agents/{agent_id}/mcp", face)], lifespan=lifespan)
        async with serving(authenticated(app)) as address:
            yield hub, address


@asynccontextmanager
async def relayed(endpoint: Endpoint, **options: Any) -> AsyncGenerator[tuple[SmallHub, str]]:
    """Serve one MCP server as the agent `it`; yields the hub and the URL of its face."""
    async with small_hub({"mcp": McpAdapter(startup_timeout_s=20)}, **options) as (hub, address):
        await hub.add("it", "mcp", endpoint, AgentCard(name="it"))
        yield hub, f"{address}/agents/it/mcp"
