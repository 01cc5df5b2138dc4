"""The registry with what was read of it kept in memory: agents are asked for at every step, and seldom change."""

from time import monotonic

from .agent import Agent, Health
from .errors import AgentNotFound
from .names import near_ids
from .store import Registry

MAX_AGE_S = 5.0
"""How long what was read is taken for true where nobody said that it changed: what another replica saw of an agent's
health is not told."""


class CachedRegistry:
    """Reads a tenant's agents together, and anew when one was changed through it, when told to, and after a while."""

    def __init__(self, inner: Registry, *, max_age_s: float = MAX_AGE_S) -> None:
        self._inner = inner
        self._max_age_s = max_age_s
        self._kept: dict[str, tuple[float, dict[str, Agent]]] = {}
        self._changes = 0

    def forget(self) -> None:
        """Take note that somebody else has changed agents."""
        self._changes += 1
        self._kept.clear()

    async def add(self, agent: Agent) -> None:
        """Keep a new agent (see `Registry.add`)."""
        try:
            await self._inner.add(agent)
        finally:
            self.forget()

    async def get(self, tenant: str, agent_id: str) -> Agent:
        """Return one agent (see `Registry.get`). One that is not known is looked for: another replica may have it."""
        agents = await self._agents(tenant)
        if agent_id in agents:
            return agents[agent_id]
        try:
            found = await self._inner.get(tenant, agent_id)
        except AgentNotFound:
            raise AgentNotFound(agent_id, near_ids(agent_id, list(agents))) from None
        self.forget()
        return found

    async def list(self, tenant: str) -> tuple[Agent, ...]:
        """Return the tenant's agents, by id."""
        return tuple((await self._agents(tenant)).values())

    async def all(self) -> tuple[Agent, ...]:
        """Return every tenant's agents, by tenant and id, as they are now."""
        return await self._inner.all()

    async def replace(self, agent: Agent) -> None:
        """Keep a changed agent in the place of the one with its tenant and id (see `Registry.replace`)."""
        try:
            await self._inner.replace(agent)
        finally:
            self.forget()

    async def set_health(self, tenant: str, agent_id: str, health: Health) -> None:
        """Note what was last seen of an agent (see `Registry.set_health`)."""
        try:
            await self._inner.set_health(tenant, agent_id, health)
        finally:
            self.forget()

    async def remove(self, tenant: str, agent_id: str) -> Agent:
        """Forget an agent and return what was known of it (see `Registry.remove`)."""
        try:
            return await self._inner.remove(tenant, agent_id)
        finally:
            self.forget()

    async def _agents(self, tenant: str) -> dict[str, Agent]:
        kept = self._kept.get(tenant)
        if kept is not None and monotonic() - kept[0] < self._max_age_s:
            return kept[1]
        before, now = self._changes, monotonic()
        agents = {agent.id: agent for agent in await self._inner.list(tenant)}
        if agents and before == self._changes:  # a tenant without agents is not worth a place: anybody can name one
            self._kept[tenant] = (now, agents)
        return agents
