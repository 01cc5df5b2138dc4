"""Places for calls: bounded, fair between tenants, and never lost."""

import asyncio

import anyio
import pytest

from interhub.hub.supervisor.slots import Slots

pytestmark = pytest.mark.anyio


async def test_a_tenant_with_a_thousand_calls_does_not_keep_another_waiting() -> None:
    slots, order = Slots(total=2, per_tenant=2), list[str]()

    async def call(tenant: str) -> None:
        async with slots.place(tenant):
            order.append(tenant)
            await asyncio.sleep(0)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(call, "big")
            await asyncio.sleep(0)
            for _ in range(10):
                tasks.start_soon(call, "small")
    last = max(place for place, tenant in enumerate(order) if tenant == "small")
    assert last <= 2 + 2 * 10 + 2, "they take turns, one each"
    assert slots.taken == 0


async def test_a_tenant_takes_no_more_than_its_share_and_all_no_more_than_there_is() -> None:
    slots, most = Slots(total=3, per_tenant=2), dict[str, int]()
    under_way: list[str] = []

    async def call(tenant: str) -> None:
        async with slots.place(tenant):
            under_way.append(tenant)
            most[tenant] = max(most.get(tenant, 0), under_way.count(tenant))
            most["all"] = max(most.get("all", 0), len(under_way))
            await asyncio.sleep(0)
            under_way.remove(tenant)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(call, f"t{number % 2}")
    assert most["all"] == 3
    assert max(most["t0"], most["t1"]) == 2


@pytest.mark.parametrize("late", [False, True])
async def test_who_gives_up_waiting_takes_no_place_along(late: bool) -> None:
    slots = Slots(total=1, per_tenant=1)

    async def call() -> None:
        async with slots.place("one"):
            pass

    async with slots.place("one"):
        waiting = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        if not late:
            waiting.cancel()
            await asyncio.wait([waiting])
    if late:
        waiting.cancel()  # just after it was given its place, before it could know
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert slots.taken == 0
    with anyio.fail_after(1):
        await call()
