"""Runs of limited tenants wait in queues of their own, on the real engine."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import anyio
import pytest

from interhub.agent_cards import JsonObject
from interhub.hub.supervisor.durable import Durable, EngineState
from interhub.hub.supervisor.engine import DbosEngine, RunLimits

pytestmark = pytest.mark.anyio


class Held:
    """Runs that are held until they are let go, each a child run within it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.news = anyio.Event()
        self.let_go = anyio.Event()

    async def execute(self, durable: Durable, given: JsonObject) -> JsonObject:
        if "." in durable.id:
            return {"child": True}
        self.begun.append(durable.id)
        self.news.set()
        await self.let_go.wait()
        child = await durable.begin_child(f"{durable.id}.child", {})
        await durable.wait([child])
        return {"ok": True}

    async def crashed(self, run_id: str, given: JsonObject, error: Exception) -> None:
        raise AssertionError(f"{run_id} crashed") from error

    async def until(self, count: int) -> None:
        with anyio.fail_after(15):
            while len(self.begun) < count:
                self.news = anyio.Event()
                await self.news.wait()


@asynccontextmanager
async def limited(directory: Path, limits: RunLimits) -> AsyncGenerator[tuple[DbosEngine, Held]]:
    engine, held = DbosEngine(f"sqlite:///{directory / 'engine.db'}", limits=limits), Held()
    await engine.launch(held.execute, held.crashed)
    try:
        yield engine, held
    finally:
        held.let_go.set()
        await engine.stop()


async def test_a_tenant_whose_queue_is_full_keeps_no_other_waiting_and_all_end(tmp_path: Path) -> None:
    async with limited(tmp_path, RunLimits(at_once=2)) as (engine, held):
        ids = [f"a{number}" for number in range(5)]
        for run_id in ids:
            await engine.start(run_id, {}, tenant="a")
        await held.until(2)
        await engine.start("b0", {}, tenant="b")
        await held.until(3)
        assert held.begun[2] == "b0", "it did not wait behind the three runs of a"
        assert set(held.begun[:2]) < set(ids)
        states = await engine.states(ids)
        assert set(states.values()) == {EngineState.ACTIVE}

        held.let_go.set()  # each has a child, which takes no place in the queue that its parent holds
        await held.until(6)
        with anyio.fail_after(15):
            while set((await engine.states([*ids, "b0"])).values()) != {EngineState.DONE}:  # noqa: ASYNC110
                await anyio.sleep(0.05)


async def test_what_was_queued_is_carried_out_after_a_restart_without_limits(tmp_path: Path) -> None:
    async with limited(tmp_path, RunLimits(at_once=1)) as (engine, held):
        for number in range(3):
            await engine.start(f"a{number}", {}, tenant="a")
        await held.until(1)
        await engine.stop()
    engine, held = DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}"), Held()
    held.let_go.set()
    await engine.launch(held.execute, held.crashed)
    try:
        await held.until(3)
        assert set(held.begun) == {"a0", "a1", "a2"}
    finally:
        await engine.stop()


async def test_starts_are_spread_over_time(tmp_path: Path) -> None:
    async with limited(tmp_path, RunLimits(starts=2, period_s=2.0)) as (engine, held):
        began = monotonic()
        for number in range(3):
            await engine.start(f"a{number}", {}, tenant="a")
        await held.until(2)
        await engine.start("b0", {}, tenant="b")
        await held.until(4)
        assert set(held.begun[:3]) >= {"b0"}, "another tenant's starts are counted by themselves"
        assert monotonic() - began > 0.5, "the third waited for its time"
