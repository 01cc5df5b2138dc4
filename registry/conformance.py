"""What every registry must do, as checks that anyone can run against their own.

```python
@pytest.mark.anyio
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_it_keeps_the_contract(check: Check) -> None:
    await check(MyRegistry())
```

Each check wants an empty registry. A failed check raises AssertionError.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TypeVar

import anyio

from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, Kind

from .agent import Agent, Health, HealthState
from .errors import AgentExists, AgentNotFound, InvalidAgentId, RegistryError
from .store import Registry

E = TypeVar("E", bound=RegistryError)


@dataclass(frozen=True)
class Check:
    """One thing that a registry must do."""

    name: str
    run: Callable[[Registry], Awaitable[None]]

    async def __call__(self, registry: Registry) -> None:
        """Run the check against an empty registry."""
        await self.run(registry)

    def __str__(self) -> str:
        return self.name


def example(agent_id: str = "weather", *, tenant: str = "default") -> Agent:
    """Return an agent with something in every field."""
    return Agent(
        id=agent_id,
        tenant=tenant,
        adapter="mcp",
        card=AgentCard(
            name="Wetter-Agent ☂",
            description="Says what the weather will be.",
            version="1.2.3",
            provider="ACME",
            documentation_url="https://example.com/docs",
            icon_url="https://example.com/icon.png",
            capabilities=(
                Capability(
                    name="forecast",
                    kind=Kind.TOOL,
                    title="Forecast",
                    description="Weather of the days to come.",
                    tags=("weather",),
                    examples=("Will it rain in Zürich?",),
                    input_schema={"type": "object", "properties": {"days": {"type": "integer", "maximum": 14}}},
                    output_schema={"type": "object", "properties": {"celsius": {"type": "number"}}},
                    input_modes=("application/json",),
                    output_modes=("application/json", "text/plain"),
                    raw={"name": "forecast", "annotations": {"readOnlyHint": True}, "odd": [1, 2.5, None, "\u2028"]},
                ),
                Capability(name="forecast", kind=Kind.PROMPT, output_schema={}),
            ),
            interfaces=(Endpoint(binding=Binding.MCP_HTTP, url="https://example.com/mcp", version="2026-07-28"),),
            streaming=True,
            push_notifications=True,
            extended_card=True,
            input_modes=("text/plain", "image/png"),
            output_modes=(),
            instructions="Ask for the place first.",
            raw={"name": "Wetter-Agent ☂", "unknown": {"deep": [{"a": -0.5}]}},
        ),
        endpoint=Endpoint(
            binding=Binding.MCP_STDIO,
            url="https://example.com/mcp",
            version="2026-07-28",
            tenant="acme",
            command=("uvx", "weather", "--units=metric"),
            env={"TOKEN": "${WEATHER_TOKEN}"},
            cwd="/tmp",  # noqa: S108 (a value that is kept, not a file that is used)
            headers={"Authorization": "Bearer ${WEATHER_TOKEN}"},
            options={"framework": "none", "levels": [1, 2]},
        ),
        digest="sha256:" + "0" * 64,
        health=Health(
            state=HealthState.FAILING,
            last_error="no answer",
            checked_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            next_try_at=datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1))),
        ),
        created_at=datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC),
        updated_at=datetime(2026, 1, 2, 12, 0, 0, 999999, tzinfo=UTC),
    )


async def _refusal(kind: type[E], verb: Awaitable[object], what: str) -> E:
    """Return the error that a verb must raise."""
    try:
        await verb
    except kind as error:
        return error
    raise AssertionError(f"{what} must be refused with {kind.__name__}")


async def _keeps_everything(registry: Registry) -> None:
    agent = example()
    await registry.add(agent)
    assert await registry.get("default", "weather") == agent, "an agent must come back as it was kept"
    bare = replace(agent, id="bare", card=AgentCard(name="bare"), health=Health())
    await registry.add(bare)
    assert await registry.get("default", "bare") == bare, "an agent must come back as it was kept"


async def _refuses_a_second(registry: Registry) -> None:
    await registry.add(example())
    error = await _refusal(
        AgentExists, registry.add(replace(example(), adapter="a2a")), "a second agent of the same id"
    )
    assert error.agent_id == "weather"
    assert (await registry.get("default", "weather")).adapter == "mcp", "the first one must stay"


async def _refuses_bad_ids(registry: Registry) -> None:
    for agent_id in ("", "-a", "a-", "A", "a_b", "a b", "ä", "a" * 33, "a\n"):
        await _refusal(InvalidAgentId, registry.add(example(agent_id)), f"the id {agent_id!r}")
    assert await registry.all() == ()


async def _knows_what_is_missing(registry: Registry) -> None:
    await registry.add(example("weather"))
    await registry.add(example("weathervane", tenant="other"))
    for verb in (registry.get, registry.remove):
        error = await _refusal(AgentNotFound, verb("default", "weathr"), "an agent that is not there")
        assert error.near == ("weather",), "ids that look like it are named, of the same tenant only"
    error = await _refusal(AgentNotFound, registry.replace(example("forecast")), "replacing what is not there")
    assert error.near == ()


async def _keeps_tenants_apart(registry: Registry) -> None:
    ours, theirs = example(), replace(example(tenant="other"), adapter="a2a")
    await registry.add(ours)
    await registry.add(theirs)
    assert await registry.list("default") == (ours,)
    assert await registry.list("other") == (theirs,)
    assert await registry.list("nobody") == ()
    await registry.remove("other", "weather")
    assert await registry.get("default", "weather") == ours
    error = await _refusal(AgentNotFound, registry.get("other", "weather"), "another tenant's agent")
    assert error.near == (), "another tenant's ids must not be told"


async def _lists_in_order(registry: Registry) -> None:
    for tenant, agent_id in (("b", "a"), ("a", "b"), ("a", "a-1"), ("a", "a"), ("a", "1")):
        await registry.add(example(agent_id, tenant=tenant))
    assert [agent.id for agent in await registry.list("a")] == ["1", "a", "a-1", "b"]
    assert [(agent.tenant, agent.id) for agent in await registry.all()] == [
        ("a", "1"),
        ("a", "a"),
        ("a", "a-1"),
        ("a", "b"),
        ("b", "a"),
    ]


async def _replaces_whole(registry: Registry) -> None:
    await registry.add(example())
    changed = Agent(
        id="weather",
        adapter="a2a",
        card=AgentCard(name="Weather 2"),
        endpoint=Endpoint(binding=Binding.A2A_JSONRPC, url="https://example.com/a2a"),
        digest="sha256:" + "1" * 64,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        updated_at=datetime(2026, 2, 1, tzinfo=UTC),
    )
    await registry.replace(changed)
    assert await registry.get("default", "weather") == changed
    assert await registry.all() == (changed,)


async def _notes_health(registry: Registry) -> None:
    await registry.add(example())
    seen = Health(state=HealthState.HEALTHY, checked_at=datetime(2026, 3, 1, tzinfo=UTC))
    await registry.set_health("default", "weather", seen)
    assert await registry.get("default", "weather") == replace(example(), health=seen)
    await registry.set_health("default", "gone", seen)
    await registry.set_health("other", "weather", seen)
    assert [agent.id for agent in await registry.all()] == ["weather"], "noting health must not add an agent"


async def _removes(registry: Registry) -> None:
    await registry.add(example())
    assert await registry.remove("default", "weather") == example(), "what was known is returned"
    assert await registry.all() == ()
    await registry.add(example())
    assert await registry.get("default", "weather") == example(), "the id is free again"


async def _takes_many_at_once(registry: Registry) -> None:
    refused = 0

    async def add(agent_id: str) -> None:
        nonlocal refused
        try:
            await registry.add(example(agent_id))
        except AgentExists:
            refused += 1

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(add, f"agent-{number % 10}")
    assert refused == 10, "of two that add the same id at once, one is refused"
    assert len(await registry.list("default")) == 10


CHECKS = (
    Check("keeps every field", _keeps_everything),
    Check("refuses a second agent of the same id", _refuses_a_second),
    Check("refuses ids of another form", _refuses_bad_ids),
    Check("says what is missing and what looks like it", _knows_what_is_missing),
    Check("keeps tenants apart", _keeps_tenants_apart),
    Check("lists by tenant and id", _lists_in_order),
    Check("replaces the whole record", _replaces_whole),
    Check("notes health and nothing else", _notes_health),
    Check("removes and returns", _removes),
    Check("takes many at once", _takes_many_at_once),
)
"""Everything that is promised, one check each."""
