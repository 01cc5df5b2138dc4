from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from interhub.adapters import (
    BadEndpoint,
    ConnectionLost,
    ProtocolViolation,
    RemoteDenied,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from interhub.adapters.backoff import Backoff
from interhub.agent_cards import AgentCard, Binding, Endpoint
from interhub.hub.health import HealthKeeper
from interhub.registry import Agent, AgentNotFound, Health, HealthState, MemoryRegistry

pytestmark = pytest.mark.anyio

START = datetime(2026, 11, 21, tzinfo=UTC)


class TellingRegistry(MemoryRegistry):
    """Tells when an agent's health was noted."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    async def set_health(self, tenant: str, agent_id: str, health: Health) -> None:
        await super().set_health(tenant, agent_id, health)
        self._tell()


class Site:
    """A registry with one agent, a clock, and somebody who looks at agents."""

    def __init__(self) -> None:
        self.registry = TellingRegistry(lambda: self._news.set())
        self.looked: list[str] = []
        self.answer: Exception | None = None
        self._news = anyio.Event()
        self.keeper = HealthKeeper(
            self.registry, self._look, backoff=Backoff(first_s=0.02, factor=2.0, cap_s=0.1), now=self._time
        )

    def _time(self) -> datetime:
        return START + timedelta(seconds=anyio.current_time())

    async def _look(self, tenant: str, agent_id: str) -> None:
        self.looked.append(agent_id)
        self._news.set()
        if self.answer is not None:
            raise self.answer
        health = Health(state=HealthState.HEALTHY)
        await self.registry.set_health(tenant, agent_id, health)

    async def add(self, agent_id: str = "clerk", *, adapter: str = "mcp", health: Health | None = None) -> Agent:
        agent = Agent(
            id=agent_id,
            adapter=adapter,
            card=AgentCard(name=agent_id),
            endpoint=Endpoint(binding=Binding.LOCAL),
            digest="sha256:0",
            health=health or Health(state=HealthState.HEALTHY),
            created_at=START,
            updated_at=START,
        )
        await self.registry.add(agent)
        return agent

    async def health(self, wanted: HealthState, agent_id: str = "clerk") -> Health:
        """Wait until the registry says what is wanted."""
        with anyio.fail_after(5):
            while (found := (await self.registry.get("default", agent_id)).health).state is not wanted:
                await self._next()
        return found

    async def looks(self, count: int) -> None:
        """Wait until agents were looked at so often."""
        with anyio.fail_after(5):
            while len(self.looked) < count:
                await self._next()

    async def _next(self) -> None:
        await self._news.wait()
        self._news = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.keeper.run)
            yield
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "error",
    [
        RemoteUnavailable("clerk", "connection refused"),
        ConnectionLost("clerk", "its process died"),
        RemoteDenied("clerk", "no such token"),
        ProtocolViolation("clerk", "garbage"),
        BadEndpoint("clerk", "no such program"),
    ],
)
async def test_an_agent_that_cannot_be_used_is_noted_with_the_reason_and_when_it_is_tried_again(
    error: Exception,
) -> None:
    site = Site()
    site.answer = error
    agent = await site.add()
    async with site.running():
        site.keeper.failed(agent, error)
        health = await site.health(HealthState.FAILING)
    assert health.last_error == str(error)
    assert health.checked_at is not None
    assert health.next_try_at is not None
    assert health.next_try_at > health.checked_at


async def test_an_agent_that_comes_back_is_found_without_anybody_calling_it() -> None:
    site = Site()
    agent = await site.add()
    site.answer = RemoteUnavailable("clerk", "connection refused")
    async with site.running():
        site.keeper.failed(agent, site.answer)
        await site.health(HealthState.FAILING)
        await site.looks(3)
        site.answer = None
        await site.health(HealthState.HEALTHY)


async def test_a_call_that_succeeds_ends_the_failing() -> None:
    site = Site()
    agent = await site.add(health=Health(state=HealthState.FAILING, next_try_at=START + timedelta(days=9999)))
    async with site.running():
        site.keeper.succeeded(agent)
        health = await site.health(HealthState.HEALTHY)
    assert health.last_error == ""
    assert site.looked == []


@pytest.mark.parametrize("error", [RemoteTimeout("clerk", 3.0), RemoteRefused("clerk", "no"), ValueError("ours")])
async def test_an_agent_that_is_slow_or_says_no_is_not_failing(error: Exception) -> None:
    site = Site()
    agent = await site.add()
    other = await site.add("other")
    async with site.running():
        site.keeper.failed(agent, error)
        site.keeper.failed(other, RemoteUnavailable("other", "gone"))
        await site.health(HealthState.FAILING, "other")
        assert (await site.registry.get("default", "clerk")).health.state is HealthState.HEALTHY


async def test_a_team_is_not_failing_when_its_members_are() -> None:
    site = Site()
    team = await site.add("team", adapter="team")
    site.keeper.failed(team, RemoteUnavailable("member", "gone"))
    other = await site.add("other")
    async with site.running():
        site.keeper.failed(other, RemoteUnavailable("other", "gone"))
        await site.health(HealthState.FAILING, "other")
        assert (await site.registry.get("default", "team")).health.state is HealthState.HEALTHY


async def test_those_that_failed_in_an_earlier_life_are_looked_at_again() -> None:
    site = Site()
    await site.add(health=Health(state=HealthState.FAILING, last_error="gone"))
    async with site.running():
        await site.health(HealthState.HEALTHY)


async def test_an_agent_that_was_removed_meanwhile_is_forgotten() -> None:
    site = Site()
    agent = await site.add()
    site.answer = AgentNotFound("clerk")
    other = await site.add("other")
    async with site.running():
        site.keeper.failed(agent, RemoteUnavailable("clerk", "gone"))
        await site.health(HealthState.FAILING)
        await site.looks(1)
        site.answer = None
        site.keeper.failed(other, RemoteUnavailable("other", "gone"))
        await site.health(HealthState.HEALTHY, "other")
    assert site.looked.count("clerk") == 1
