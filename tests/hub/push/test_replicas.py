"""Webhooks of several hubs: each is told by one of them, and by another when that one is gone."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import pytest
from sqlalchemy import Engine

from interhub.adapters import Message, Principal, Role
from interhub.hub.push.claims import PostgresClaims
from interhub.hub.push.config import Destination, PushConfig, PushState
from interhub.hub.push.outbox import Outbox
from interhub.hub.push.sender import Push, Sender
from interhub.hub.push.store import PushStore
from interhub.hub.supervisor.run import Event, EventKind, Run, RunState
from interhub.registry.database import open_database
from tests.support.postgres import PostgresServer, postgres_server

pytestmark = pytest.mark.anyio

AT = datetime(2026, 11, 30, tzinfo=UTC)
KEY = b"k" * 32


class Site:
    """One run that goes on and ends when it is told to, and the webhook that hears of it."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.received: list[tuple[str, str]] = []
        """Hub and delivery."""
        self.came = anyio.Event()

    async def run(self, principal: Principal, run_id: str) -> Run:
        return Run(
            id=run_id,
            tenant="default",
            subject="ann",
            context_id="c",
            goal=Message(role=Role.USER, parts=()),
            state=RunState.WORKING,
            created_at=AT,
            updated_at=AT,
            generation=3,
        )

    async def watch(self, principal: Principal, run_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        await self.ended.wait()
        if after < 4:
            yield Event(run_id=run_id, seq=4, step="", attempt=0, kind=EventKind.RUN_COMPLETED, n=0, at=AT, payload={})

    def story(self, principal: Principal, run: Run, version: str) -> "Site":
        return self

    async def beginning(self, run: Run) -> bytes:
        return b"beginning"

    async def bodies(self, event: Event) -> Sequence[bytes]:
        return [b"end"]

    async def until(self, deliveries: int) -> None:
        with anyio.fail_after(10):
            while len(self.received) < deliveries:
                await self.came.wait()


class Post:
    """Takes what a hub sends."""

    def __init__(self, site: Site, hub: str) -> None:
        self._site = site
        self._hub = hub

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        yield

    async def send(self, destination: Destination, push: Push) -> None:
        self._site.received.append((self._hub, push.delivery))
        self._site.came.set()
        self._site.came = anyio.Event()


@pytest.fixture(scope="module")
def server() -> Generator[PostgresServer]:
    with postgres_server() as running:
        yield running


def outbox(site: Site, database: Engine, hub: str) -> Outbox:
    return Outbox(
        store=PushStore(database, KEY),
        sender=cast("Sender", Post(site, hub)),
        runs=site,
        bodies=cast("Any", site),
        claims=PostgresClaims(database),
        take_up_s=0.05,
    )


def config(run_id: str) -> PushConfig:
    return PushConfig(
        run_id=run_id,
        id="c",
        tenant="default",
        subject="ann",
        destination=Destination(url="https://example.com/hook"),
        version="1.0",
        created_at=AT,
    )


async def test_one_hub_tells_a_webhook_and_another_goes_on_when_it_is_gone(server: PostgresServer) -> None:
    site, databases = Site(), [open_database(server.url), open_database(server.url)]
    first, second = (outbox(site, database, hub) for database, hub in zip(databases, ("first", "second"), strict=True))
    async with second.running():
        async with first.running():
            assert await first.add(config("gone"), most=10)
            await site.until(1)
            others = PostgresClaims(databases[1])
            assert not await others.claim(("gone", "c"))
            await others.close()
            assert site.received == [("first", "gone.3.0")]
        site.ended.set()
        await site.until(2)
        assert site.received[1:] == [("second", "gone.4.0")]
        with anyio.fail_after(5):
            # The database tells nobody that a row has changed.
            while (kept := await second.store.get("gone", "c")) is None or kept.state is not PushState.DONE:  # noqa: ASYNC110
                await anyio.sleep(0.01)
    for database in databases:
        database.dispose()


async def test_a_webhook_that_was_removed_at_another_hub_is_let_go_at_the_next_event(server: PostgresServer) -> None:
    site, databases = Site(), [open_database(server.url), open_database(server.url)]
    first, second = (outbox(site, database, hub) for database, hub in zip(databases, ("first", "second"), strict=True))
    async with first.running(), second.running():
        assert await first.add(config("removed"), most=10)
        await site.until(1)
        await second.remove("removed", "c")
        claims = PostgresClaims(databases[1])
        assert not await claims.claim(("removed", "c")), "the first does not know it yet"
        site.ended.set()
        with anyio.fail_after(5):
            while not await claims.claim(("removed", "c")):  # noqa: ASYNC110  # a lock tells nobody that it is free
                await anyio.sleep(0.01)
        assert await second.store.of_run("removed") == []
        await claims.close()
    for database in databases:
        database.dispose()
