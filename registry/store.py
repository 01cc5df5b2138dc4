"""Where agents are kept: the Protocol that `SqlRegistry` and `MemoryRegistry` keep, proved by one conformance suite."""

from typing import Protocol

from .agent import Agent, Health


class Registry(Protocol):
    """The agents of every tenant. A tenant never sees another's: another's agent is the same "not found" as none."""

    async def add(self, agent: Agent) -> None:
        """Keep a new agent.

        Raises:
            AgentExists: the tenant has one of that id.
            InvalidAgentId: the id is not of the allowed form.
        """
        ...

    async def get(self, tenant: str, agent_id: str) -> Agent:
        """Return one agent.

        Raises:
            AgentNotFound: the tenant has none of that id.
        """
        ...

    async def list(self, tenant: str) -> tuple[Agent, ...]:
        """Return the tenant's agents, by id."""
        ...

    async def all(self) -> tuple[Agent, ...]:
        """Return every tenant's agents, by tenant and id: for start-up."""
        ...

    async def replace(self, agent: Agent) -> None:
        """Keep a changed agent in the place of the one with its tenant and id.

        Raises:
            AgentNotFound: there is none to replace.
        """
        ...

    async def set_health(self, tenant: str, agent_id: str, health: Health) -> None:
        """Note what was last seen of an agent; an agent removed meanwhile is not an error."""
        ...

    async def remove(self, tenant: str, agent_id: str) -> Agent:
        """Forget an agent and return what was known of it.

        Raises:
            AgentNotFound: the tenant has none of that id.
        """
        ...
