"""Triggers over a real supervisor, engine and database, with scripted agents."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from interhub.adapters.testing import ScriptedAgent
from interhub.hub.bus import NoBus
from interhub.hub.discovery import Discovery
from interhub.hub.service import Hub, HubInfo
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.triggers.store import TriggerStore
from interhub.hub.triggers.triggers import Triggers
from interhub.registry.database import open_database
from tests.support.supervised import World, parsed, supervised


@dataclass(frozen=True, kw_only=True)
class Site:
    """A hub's verbs, and its triggers."""

    world: World
    hub: Hub
    store: TriggerStore
    triggers: Triggers
    database: sa.Engine


ENV = {"HOOK_SECRET": "a secret of the environment"}


def no_relay(principal: object, agent_id: str) -> Any:
    raise AssertionError("no resource is watched here")


@asynccontextmanager
async def _site(directory: Path, *agents: ScriptedAgent, postgres: str = "") -> AsyncGenerator[Site]:
    engine = DbosEngine(postgres or f"sqlite:///{directory / 'engine.db'}")
    async with supervised(directory, *agents, engine=engine) as world:
        hub = Hub(
            info=HubInfo(base_url="http://hub", version="0"),
            registry=world.registry,
            index=world.index,
            discovery=Discovery(adapters={}, documents=world.supervisor),
            dispatcher=world.dispatcher,
            supervisor=world.supervisor,
            audit=world.audit,
        )
        database = open_database(postgres or f"sqlite:///{directory / 'interhub.db'}")
        try:
            store = TriggerStore(database, bytes(32), NoBus())
            yield Site(
                world=world,
                hub=hub,
                store=store,
                triggers=Triggers(store, hub, no_relay, env=ENV),
                database=database,
            )
        finally:
            database.dispose()


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Site]]:
    """What opens a site on the test's directory, again and again: `async with site(agent, ...)`."""
    return lambda *agents: _site(tmp_path, *agents)


@pytest.fixture(params=["sqlite", "postgres"])
def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Site]]:
    """The same, on each kind of database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return lambda *agents: _site(tmp_path, *agents, postgres=url)


__all__ = ["Site", "parsed"]
