"""The registry in memory: the twin of `SqlRegistry` for tests, and for a hub that keeps nothing."""

from dataclasses import replace

from .agent import Agent, Health
from .errors import AgentExists, AgentNotFound
from .names import check_id, near_ids


class MemoryRegistry:
    """Keeps agents in a dictionary."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, str], Agent] = {}

    async def add(self, agent: Agent) -> None:
        """Keep a new agent (see `Registry.add`)."""
        check_id(agent.id)
        if (agent.tenant, agent.id) in self._agents:
            raise AgentExists(agent.id)
        self._agents[agent.tenant, agent.id] = agent

    async def get(self, tenant: str, agent_id: str) -> Agent:
        """Return one agent (see `Registry.get`)."""
        try:
            return self._agents[tenant, agent_id]
        except KeyError:
            raise self._not_found(tenant, agent_id) from None

    async def list(self, tenant: str) -> tuple[Agent, ...]:
        """Return the tenant's agents, by id."""
        return tuple(self._agents[key] for key in sorted(self._agents) if key[0] == tenant)

    async def all(self) -> tuple[Agent, ...]:
        """Return every tenant's agents, by tenant and id."""
        return tuple(self._agents[key] for key in sorted(self._agents))

    async def replace(self, agent: Agent) -> None:
        """Keep a changed agent in the place of the one with its tenant and id (see `Registry.replace`)."""
        if (agent.tenant, agent.id) not in self._agents:
            raise self._not_found(agent.tenant, agent.id)
        self._agents[agent.tenant, agent.id] = agent

    async def set_health(self, tenant: str, agent_id: str, health: Health) -> None:
        """Note what was last seen of an agent; an agent removed meanwhile is not an error."""
        agent = self._agents.get((tenant, agent_id))
        if agent is not None:
            self._agents[tenant, agent_id] = replace(agent, health=health)

    async def remove(self, tenant: str, agent_id: str) -> Agent:
        """Forget an agent and return what was known of it (see `Registry.remove`)."""
        try:
            return self._agents.pop((tenant, agent_id))
        except KeyError:
            raise self._not_found(tenant, agent_id) from None

    def _not_found(self, tenant: str, agent_id: str) -> AgentNotFound:
        return AgentNotFound(agent_id, near_ids(agent_id, [known for owner, known in self._agents if owner == tenant]))
