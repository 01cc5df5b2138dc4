"""Agents that say they changed are looked at, and not more often than is good."""

from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from interhub.hub.relook import Relook

pytestmark = pytest.mark.anyio


class Hours:
    """A clock that is set by hand, and a sleep that sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await anyio.lowlevel.checkpoint()


async def test_a_change_is_looked_at_at_once_and_several_at_a_time_once() -> None:
    looked: list[str] = []
    begun, go = anyio.Event(), anyio.Event()

    async def look(agent_id: str) -> None:
        looked.append(agent_id)
        begun.set()
        await go.wait()

    hours = Hours()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            relook = Relook(look, tasks, clock=hours, sleep=hours.sleep)
            relook.changed("a")
            await begun.wait()
            for _ in range(100):
                relook.changed("a")  # during the look: it may have been too early to see it
            go.set()
    assert looked == ["a", "a"]
    assert hours.now == 100.5


async def test_one_that_never_stops_changing_is_looked_at_less_and_less_and_holds_up_nobody() -> None:
    at: list[float] = []
    other: list[float] = []
    hours = Hours()

    async def look(agent_id: str) -> None:
        if agent_id == "calm":
            other.append(hours.now)
            return
        at.append(hours.now)
        if len(at) == 1:
            relook.changed("calm")
        if len(at) < 12:
            relook.changed("restless")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            relook = Relook(look, tasks, pause_s=0.5, longest_s=60, clock=hours, sleep=hours.sleep)
            relook.changed("restless")
    gaps = [round(later - earlier, 3) for earlier, later in pairwise(at)]
    assert gaps == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert other[0] <= 100.5


async def test_a_look_that_fails_ends_nothing() -> None:
    seen: list[str] = []

    async def look(agent_id: str) -> None:
        seen.append(agent_id)
        raise RuntimeError("of another")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            relook = Relook(look, tasks)
            relook.changed("a")
            relook.changed("b")
    assert sorted(seen) == ["a", "b"]
