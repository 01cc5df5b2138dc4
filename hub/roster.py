"""Keeps what this replica holds of agents in step with the registry, whichever replica changed it.

That is the search index, the open connections, and what faces keep by tenant; what was read of the registry is read
anew (`CachedRegistry`). An agent that another replica changed is taken up within milliseconds, by a notice, and after a
gap by comparison.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from interhub.agent_cards import Endpoint
from interhub.registry import Agent, AgentNotFound, Registry
from interhub.registry.search import Index

from .bus import Bus

log = structlog.get_logger()

AGENT_TOPIC = "agent"
"""Of notices that name an agent (tenant/id) which was added, changed or removed."""


class Roster:
    """The agents as this replica holds them."""

    def __init__(self, *, registry: Registry, index: Index, bus: Bus, forget: Callable[[str, str], None]) -> None:
        """`forget` closes what is open to an agent (tenant, id); it must not block."""
        self._registry = registry
        self._index = index
        self._bus = bus
        self._forget = forget
        self._listeners: set[Callable[[str], None]] = set()
        self._known: dict[tuple[str, str], tuple[str, Endpoint]] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        bus.hear(AGENT_TOPIC, lambda name: self._start(name))
        bus.hear_gaps(lambda: self._start(""))

    def on_changed(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Have a listener called with the tenant whose agents changed. Returns a function that ends it."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def load(self) -> None:
        """Take up every agent: once, at start-up."""
        for agent in await self._registry.all():
            self._put(agent)

    async def changed(self, agent: Agent) -> None:
        """Take up an agent that was added or changed here, and tell the other replicas."""
        self._put(agent)
        self._tell(agent.tenant)
        await self.announce(agent)

    async def removed(self, agent: Agent) -> None:
        """Let go of an agent that was removed here, and tell the other replicas."""
        self._drop(agent.tenant, agent.id)
        self._tell(agent.tenant)
        await self.announce(agent)

    async def announce(self, agent: Agent) -> None:
        """Have the other replicas read an agent anew."""
        await self._bus.say(AGENT_TOPIC, f"{agent.tenant}/{agent.id}")

    # From other replicas

    def _start(self, name: str) -> None:
        task = asyncio.ensure_future(self._follow(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, name: str) -> None:
        """Look again at one agent, or at all; one look after the other, so that the last one sees what is."""
        async with self._turn:
            try:
                if name:
                    tenant, _, agent_id = name.rpartition("/")
                    await self._follow_one(tenant, agent_id)
                else:
                    await self._follow_all()
            except Exception:  # the edge of a notice: the others are followed all the same
                log.exception("agents_of_other_replicas_not_followed", agent=name)

    async def _follow_one(self, tenant: str, agent_id: str) -> None:
        try:
            agent = await self._registry.get(tenant, agent_id)
        except AgentNotFound:
            if (tenant, agent_id) in self._known:
                self._drop(tenant, agent_id)
                self._tell(tenant)
            return
        if self._put(agent):
            self._tell(tenant)

    async def _follow_all(self) -> None:
        there: Mapping[tuple[str, str], Agent] = {
            (agent.tenant, agent.id): agent for agent in await self._registry.all()
        }
        gone = [key for key in self._known if key not in there]
        for key in gone:
            self._drop(*key)
        changed = {tenant for tenant, _ in gone} | {agent.tenant for agent in there.values() if self._put(agent)}
        for tenant in sorted(changed):
            self._tell(tenant)

    def _put(self, agent: Agent) -> bool:
        """Take an agent up; False when it is as it was."""
        key, now = (agent.tenant, agent.id), (agent.digest, agent.endpoint)
        before = self._known.get(key)
        if before == now:
            return False
        self._known[key] = now
        self._index.put(agent)
        if before is not None and before[1] != agent.endpoint:
            self._forget(agent.tenant, agent.id)
        return True

    def _drop(self, tenant: str, agent_id: str) -> None:
        self._known.pop((tenant, agent_id), None)
        self._index.remove(tenant, agent_id)
        self._forget(tenant, agent_id)

    def _tell(self, tenant: str) -> None:
        for listener in tuple(self._listeners):
            listener(tenant)
