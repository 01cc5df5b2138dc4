"""How many direct calls may be under way at once, and what becomes of those that are too many."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime

import anyio
import pytest

from interhub.adapters import Call, Principal
from interhub.adapters.pool import ConnectionPool
from interhub.agent_cards import AgentCard, Binding, Endpoint
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.dispatch import Dispatcher
from interhub.hub.errors import TooManyCalls, problem_of
from interhub.hub.flights import FlightLimits, Flights
from interhub.hub.policy import TenantPolicy
from interhub.registry import Agent

pytestmark = pytest.mark.anyio

CALC, CLOCK = ("default", "calc"), ("default", "clock")
ADA, EVE = "default/ada", "default/eve"


def test_an_agent_and_a_caller_have_only_so_many_calls_at_once() -> None:
    flights = Flights(FlightLimits(per_agent=2, per_principal=3))
    assert [flights.take(CALC, ADA) for _ in range(3)] == [True, True, False]
    assert not flights.take(CALC, EVE)
    assert [flights.take(CLOCK, ADA) for _ in range(2)] == [True, False]
    assert flights.take(CLOCK, EVE)
    flights.give(CALC, ADA)
    assert flights.take(CALC, EVE)


async def test_who_waits_is_let_in_in_turn_past_those_who_cannot_go_yet() -> None:
    flights = Flights(FlightLimits(per_agent=1, per_principal=10, wait_s=5))
    let_in: list[str] = []

    async def enter(agent: tuple[str, str], who: str) -> None:
        await flights.enter(agent, who)
        let_in.append(f"{agent[1]} {who}")

    assert flights.take(CALC, ADA)
    assert flights.take(CLOCK, ADA)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for agent, who in ((CALC, "one"), (CALC, "two"), (CLOCK, "three")):
                tasks.start_soon(enter, agent, who)
                await anyio.wait_all_tasks_blocked()
            flights.give(CLOCK, ADA)
            await anyio.wait_all_tasks_blocked()
            assert let_in == ["clock three"]
            flights.give(CALC, ADA)
            await anyio.wait_all_tasks_blocked()
            assert let_in == ["clock three", "calc one"]
            flights.give(CALC, "one")
    assert let_in[-1] == "calc two"


async def test_who_waits_too_long_is_told_which_limit_it_was_and_to_try_again() -> None:
    flights = Flights(FlightLimits(per_agent=1, per_principal=1, wait_s=0))
    assert flights.take(CALC, ADA)
    with pytest.raises(TooManyCalls, match=r"agent 'calc' has 1 calls .*limits\.calls_per_agent.*try again"):
        await flights.enter(CALC, EVE)
    with pytest.raises(TooManyCalls, match=r"this caller has 1 calls .*limits\.calls_per_principal"):
        await flights.enter(CLOCK, ADA)
    assert flights.take(CLOCK, EVE), "who gave up holds no place"


async def test_who_gives_up_waiting_leaves_its_turn_to_the_next() -> None:
    flights = Flights(FlightLimits(per_agent=1, wait_s=5))
    assert flights.take(CALC, ADA)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flights.enter, CALC, EVE)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    flights.give(CALC, ADA)
    assert flights.take(CALC, ADA)


async def test_a_call_that_is_let_through_holds_its_place_until_it_ends_is_handed_on_or_dropped() -> None:
    endpoint = Endpoint(binding=Binding.MCP_HTTP, url="http://127.0.0.1:9/mcp")
    at = datetime.now(UTC)
    card = AgentCard(name="calc")
    agent = Agent(id="calc", adapter="mcp", endpoint=endpoint, card=card, digest="", created_at=at, updated_at=at)
    call = Call(capability="add", principal=Principal(subject="ada"), idempotency_key="1")
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(ConnectionPool())
        audit = MemoryAuditLog()
        limits = FlightLimits(per_agent=1, wait_s=0)
        dispatcher = Dispatcher(adapters={}, pool=pool, policy=TenantPolicy(), audit=audit, limits=limits)
        ended = dispatcher.let_through(agent, call)
        assert ended is not None
        assert dispatcher.let_through(agent, call) is None
        with pytest.raises(TooManyCalls) as full:
            async with dispatcher.under_way(agent, call):
                pass
        assert problem_of(full.value).details == {"retryable": True}
        ended.end("completed")

        handed_on = dispatcher.let_through(agent, call)
        assert handed_on is not None
        with handed_on.hand_on():
            async with dispatcher.under_way(agent, call):  # the same call, which is counted once
                assert dispatcher.let_through(agent, call) is None

        dropped = dispatcher.let_through(agent, call)
        assert dropped is not None
        del dropped
        async with dispatcher.under_way(agent, call):
            assert dispatcher.let_through(agent, call) is None
        assert dispatcher.let_through(agent, call) is not None
        assert [record.outcome for record in audit.records] == ["TOO_MANY_CALLS", "completed"]
