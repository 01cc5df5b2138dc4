"""Connections kept open between calls."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from interhub.adapters import (
    BadEndpoint,
    Call,
    Connection,
    ConnectionLost,
    Outcome,
    Principal,
    RemoteUnavailable,
    Report,
    ignore,
)
from interhub.adapters.backoff import Backoff
from interhub.adapters.condition import State
from interhub.adapters.pool import ConnectionPool, Opener, PoolKey
from interhub.adapters.testing import ScriptedAgent, ScriptedConnection, Turn, answer
from interhub.agent_cards import AgentCard

pytestmark = pytest.mark.anyio

ANN = PoolKey(credential="ann", agent="clerk")
BOB = PoolKey(credential="bob", agent="clerk")
CALL = Call(capability="file", principal=Principal(subject="ann"), idempotency_key="run/1")


class Desk:
    """Opens connections to one scripted agent, and counts them."""

    def __init__(
        self, agent: ScriptedAgent, *, gate: anyio.Event | None = None, error: Exception | None = None
    ) -> None:
        self.agent = agent
        self.gate = gate
        self.error = error
        self.openings = 0
        self.open = 0
        self.all_closed = anyio.Event()

    def __call__(self) -> AbstractAsyncContextManager[Connection]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Connection]:
        self.openings += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.open += 1
        try:
            async with (
                anyio.create_task_group()
            ):  # as the SDKs' clients have: it must be left by the task that entered it
                yield ScriptedConnection(self.agent)
        finally:
            self.open -= 1
            self.all_closed.set()


def clerk() -> ScriptedAgent:
    return ScriptedAgent("clerk").on("file", answer("filed"))


async def test_callers_share_one_connection_for_a_credential_and_never_across_credentials() -> None:
    desk = Desk(clerk(), gate=anyio.Event())
    async with ConnectionPool() as pool:

        async def ask(key: PoolKey) -> None:
            assert await (await pool.get(key, desk)).call(CALL, ignore) == answer("filed")

        async with anyio.create_task_group() as tasks:
            for key in (ANN, ANN, ANN, BOB):
                tasks.start_soon(ask, key)
            await anyio.wait_all_tasks_blocked()
            assert {state.state for state in pool.states()} == {State.OPENING}
            assert desk.gate is not None
            desk.gate.set()
        assert desk.openings == 2
        assert {state.state for state in pool.states()} == {State.OPEN}
    assert desk.open == 0


async def test_a_failure_to_open_goes_to_all_waiters_and_backs_off() -> None:
    now = 100.0
    gate = anyio.Event()
    desk = Desk(clerk(), gate=gate, error=RemoteUnavailable("clerk", "no route"))
    async with ConnectionPool(backoff=Backoff(first_s=8, cap_s=60, chance=lambda: 1.0), clock=lambda: now) as pool:
        errors: list[str] = []

        async def ask() -> None:
            with pytest.raises(RemoteUnavailable) as raised:
                await pool.get(ANN, desk)
            errors.append(raised.value.why)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert errors == ["no route"] * 3
        assert desk.openings == 1
        with pytest.raises(RemoteUnavailable, match=r"no route \(next tried in 8\.0 s\)"):
            await pool.get(ANN, desk)
        assert desk.openings == 1
        (state,) = pool.states()
        assert (state.state, state.failures, state.next_try_s) == (State.FAILED, 1, 8.0)
        now += 8
        with pytest.raises(RemoteUnavailable):
            await pool.get(ANN, desk)
        assert pool.states()[0].next_try_s == 16.0
        await pool.evict("clerk")
        desk.error = None
        await pool.get(ANN, desk)
        assert [state.state for state in pool.states()] == [State.OPEN]


async def test_an_endpoint_that_cannot_be_used_stays_what_it_is_while_backing_off() -> None:
    desk = Desk(clerk(), error=BadEndpoint("clerk.py", "no such file"))
    async with ConnectionPool() as pool:
        for _ in range(2):
            with pytest.raises(BadEndpoint, match="no such file"):
                await pool.get(ANN, desk)
    assert desk.openings == 1


async def test_an_adapters_bug_is_that_agents_failure() -> None:
    desk = Desk(clerk(), error=KeyError("oops"))
    async with ConnectionPool() as pool:
        with pytest.raises(RemoteUnavailable, match="KeyError"):
            await pool.get(ANN, desk)
        other = PoolKey(credential="ann", agent="other")
        assert await (await pool.get(other, Desk(clerk()))).call(CALL, ignore) == answer("filed")


async def test_a_slow_agent_holds_up_no_other() -> None:
    stuck = Desk(clerk(), gate=anyio.Event())
    async with ConnectionPool() as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.get, PoolKey(credential="ann", agent="stuck"), stuck)
        await anyio.wait_all_tasks_blocked()
        assert await (await pool.get(ANN, Desk(clerk()))).call(CALL, ignore) == answer("filed")
        tasks.cancel_scope.cancel()


async def test_a_waiter_that_gives_up_does_not_stop_the_opening_for_the_others() -> None:
    gate = anyio.Event()
    desk = Desk(clerk(), gate=gate)
    async with ConnectionPool() as pool:
        with anyio.move_on_after(0.01):
            await pool.get(ANN, desk)
        gate.set()
        await pool.get(ANN, desk)
        assert desk.openings == 1


async def test_an_idle_connection_is_closed_and_the_handle_opens_another() -> None:
    desk = Desk(clerk())
    async with ConnectionPool(idle_s=0.01) as pool:
        handle = await pool.get(ANN, desk)
        with anyio.fail_after(5):
            await desk.all_closed.wait()
        assert await handle.call(CALL, ignore) == answer("filed")
        assert desk.openings == 2


async def test_an_evicted_connection_finishes_its_calls_while_new_ones_use_a_new_one() -> None:
    gate = anyio.Event()
    old = Desk(ScriptedAgent("clerk").on("file", Turn(until=gate, end=answer("old"))))
    new = Desk(clerk())
    ended: list[Outcome] = []
    async with ConnectionPool() as pool:
        handle = await pool.get(ANN, old)

        async def ask() -> None:
            ended.append(await handle.call(CALL, ignore))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await old.agent.wait_for_calls(1)
            await pool.evict("clerk")
            assert await (await pool.get(ANN, new)).call(CALL, ignore) == answer("filed")
            assert old.open == 1
            gate.set()
        assert ended == [answer("old")]
        with anyio.fail_after(5):
            await old.all_closed.wait()


async def test_a_lost_connection_is_opened_again_at_the_next_call() -> None:
    desk = Desk(ScriptedAgent("clerk").on("file", ConnectionLost("clerk", "died"), answer("filed")))
    async with ConnectionPool() as pool:
        handle = await pool.get(ANN, desk)
        with pytest.raises(ConnectionLost):
            await handle.call(CALL, ignore)
        assert await handle.call(CALL, ignore) == answer("filed")
        assert desk.openings == 2


async def test_a_connection_that_dies_under_a_call_ends_the_call() -> None:
    dying = anyio.Event()

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Connection]:
        async with anyio.create_task_group() as tasks:

            async def die() -> None:
                await dying.wait()
                raise OSError("socket gone")

            tasks.start_soon(die)
            yield ScriptedConnection(ScriptedAgent("clerk").on("file", Turn(until=anyio.Event())))

    async with ConnectionPool() as pool:
        handle = await pool.get(ANN, open_one)

        async def report_dead(call: Call, report: Report) -> None:
            with pytest.raises(ConnectionLost, match="closed during the call"):
                await handle.call(call, report)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(report_dead, CALL, ignore)
                await anyio.wait_all_tasks_blocked()
                dying.set()


async def test_an_open_connection_goes_by_the_card_of_whoever_calls() -> None:
    told: list[AgentCard] = []

    class Reader(ScriptedConnection):
        def renew(self, card: AgentCard) -> bool:
            told.append(card)
            return True

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Connection]:
        yield Reader(clerk())

    old, new = AgentCard(name="clerk", version="1"), AgentCard(name="clerk", version="2")
    async with ConnectionPool() as pool:
        early = await pool.get(ANN, open_one, card=old)
        await early.call(CALL, ignore)
        assert not told, "it was opened with this card"
        late = await pool.get(ANN, open_one, card=new)
        await late.call(CALL, ignore)
        assert told == [new]
        await early.call(CALL, ignore)
        assert told == [new, old], "its arguments were checked by this one"


async def test_a_connection_that_cannot_go_by_a_card_serves_what_is_under_way_and_nothing_new() -> None:
    go_on, began = anyio.Event(), anyio.Event()
    opened: list[str] = []
    ended: list[str] = []

    class Bound(ScriptedConnection):
        def renew(self, card: AgentCard) -> bool:
            return False

    async def slow(call: Call, report: Report) -> Outcome:
        began.set()
        await go_on.wait()
        return answer("filed")

    def opener(version: str) -> Opener:
        @asynccontextmanager
        async def open_one() -> AsyncGenerator[Connection]:
            opened.append(version)
            yield Bound(ScriptedAgent("clerk").on("file", slow if version == "1" else answer("filed")))
            ended.append(version)

        return open_one

    old, new = AgentCard(name="clerk", version="1"), AgentCard(name="clerk", version="2")
    async with ConnectionPool(drain_s=0.01) as pool, anyio.create_task_group() as tasks:
        early = await pool.get(ANN, opener("1"), card=old)
        tasks.start_soon(early.call, CALL, ignore)
        with anyio.fail_after(5):
            await began.wait()
            late = await pool.get(ANN, opener("2"), card=new)
            await late.call(CALL, ignore)
            await anyio.sleep(0.05)
        assert (opened, ended) == (["1", "2"], [])
        go_on.set()
    assert sorted(ended) == ["1", "2"]


async def test_leaving_the_pool_ends_calls_in_flight() -> None:
    desk = Desk(ScriptedAgent("clerk").on("file", Turn(until=anyio.Event())))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, ConnectionPool(close_s=0.01) as pool:
            handle = await pool.get(ANN, desk)

            async def ask() -> None:
                with pytest.raises(ConnectionLost):
                    await handle.call(CALL, ignore)

            tasks.start_soon(ask)
            await desk.agent.wait_for_calls(1)
    assert desk.open == 0
    with pytest.raises(RemoteUnavailable, match="stopping"):
        await pool.get(ANN, desk)
