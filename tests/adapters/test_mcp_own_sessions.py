"""The sessions of single clients with a server that cannot be reached: how often one is tried."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from interhub.adapters import RemoteUnavailable
from interhub.adapters.backoff import Backoff
from interhub.adapters.mcp.session import McpSession
from interhub.adapters.mcp.upstream import OwnSessions

pytestmark = pytest.mark.anyio


class Server:
    """Is down. Its openings last until they are let go."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tried = 0
        self.go_on = anyio.Event()
        self.backoff = Backoff(first_s=1.0, cap_s=8.0, rest_after=3, rest_s=100.0, chance=lambda: 0.999999)
        self.own = OwnSessions(label="it", backoff=self.backoff, clock=lambda: self.now)

    @asynccontextmanager
    async def opening(self) -> AsyncGenerator[McpSession]:
        self.tried += 1
        await self.go_on.wait()
        raise RemoteUnavailable("it", "it is down")
        yield

    async def refused(self) -> str:
        with pytest.raises(RemoteUnavailable) as raised:
            async with self.own.open(self.opening()):
                pass
        return str(raised.value)


async def test_after_every_failure_no_session_is_opened_for_longer_and_then_for_very_long() -> None:
    server = Server()
    server.go_on.set()
    for wait_s in (1.0, 2.0, 100.0, 100.0):
        assert "next tried" not in await server.refused()
        tried = server.tried
        assert f"next tried in {wait_s:.1f} s" in await server.refused()
        server.now += wait_s - 0.1
        assert "next tried in 0.1 s" in await server.refused()
        assert server.tried == tried
        server.now += 0.1


async def test_what_fails_side_by_side_is_one_failure_and_then_one_at_a_time_is_tried() -> None:
    server = Server()
    said: list[str] = []

    async def refused() -> None:
        said.append(await server.refused())

    for tried in (4, 5):
        server.go_on = anyio.Event()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(refused)
                await anyio.wait_all_tasks_blocked()
                assert server.tried == tried
                server.now += 0.1
                server.go_on.set()
        server.now += 1.0
    assert sum("next tried in 2.0 s" in each for each in said) == 3
