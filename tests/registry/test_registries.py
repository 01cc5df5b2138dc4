"""Both registries keep the one contract, on both databases."""

from dataclasses import replace

import pytest

from interhub.registry import AgentNotFound, DatabaseUnusable, Health, HealthState, MemoryRegistry
from interhub.registry.cached import CachedRegistry
from interhub.registry.conformance import CHECKS, Check, example
from interhub.registry.database import open_database, writing
from interhub.registry.sql import SqlRegistry

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_the_registry_in_memory_keeps_the_contract(check: Check) -> None:
    await check(MemoryRegistry())


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_the_registry_in_the_database_keeps_the_contract(check: Check, database_url: str) -> None:
    engine = open_database(database_url)
    try:
        await check(SqlRegistry(engine))
    finally:
        engine.dispose()


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_a_registry_that_keeps_what_it_read_keeps_the_contract(check: Check) -> None:
    await check(CachedRegistry(MemoryRegistry(), max_age_s=3600))


async def test_what_somebody_else_changed_is_seen_when_told_of_or_after_a_while() -> None:
    inner = MemoryRegistry()
    told, aged = CachedRegistry(inner, max_age_s=3600), CachedRegistry(inner, max_age_s=0)
    await told.add(example())
    for registry in (told, aged):
        assert (await registry.get("default", "weather")).digest == example().digest

    await inner.replace(replace(example(), digest="sha256:other"))
    assert (await told.get("default", "weather")).digest == example().digest
    assert (await aged.get("default", "weather")).digest == "sha256:other"
    told.forget()
    assert (await told.get("default", "weather")).digest == "sha256:other"


async def test_an_agent_that_somebody_else_has_just_added_is_found_by_its_name() -> None:
    inner = MemoryRegistry()
    registry = CachedRegistry(inner, max_age_s=3600)
    await registry.add(example())
    assert [agent.id for agent in await registry.list("default")] == ["weather"]

    await inner.add(replace(example(), id="news"))
    assert (await registry.get("default", "news")).id == "news"
    assert [agent.id for agent in await registry.list("default")] == ["news", "weather"]


async def test_agents_are_still_there_when_the_database_is_opened_again(database_url: str) -> None:
    engine = open_database(database_url)
    await SqlRegistry(engine).add(example())
    engine.dispose()
    engine = open_database(database_url)
    try:
        assert await SqlRegistry(engine).all() == (example(),)
    finally:
        engine.dispose()


async def test_odd_texts_survive_the_database(database_url: str) -> None:
    card = replace(example().card, raw={"half": "\ud800", "nul": "a\x00b", "huge": 2**70, "ctl": "\u001f"})
    engine = open_database(database_url)
    try:
        registry = SqlRegistry(engine)
        await registry.add(replace(example(), card=card))
        assert (await registry.get("default", "weather")).card == card
    finally:
        engine.dispose()


async def test_an_error_full_of_garbage_can_be_noted(database_url: str) -> None:
    engine = open_database(database_url)
    try:
        registry = SqlRegistry(engine)
        await registry.add(example())
        await registry.set_health("default", "weather", Health(state=HealthState.FAILING, last_error="a\x00b\udc80c"))
        assert (await registry.get("default", "weather")).health.last_error == "a\ufffdb\ufffdc"
    finally:
        engine.dispose()


async def test_a_full_disk_is_named_and_what_was_there_stays(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    try:
        registry = SqlRegistry(engine)
        await registry.add(example())
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        with writing(engine) as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        # The limit is the connection's own; the pool hands the same one out again.
        with pytest.raises(DatabaseUnusable, match="the disk is full"):
            await registry.add(replace(example("huge"), card=replace(example().card, description="x" * 1_000_000)))
        assert [agent.id for agent in await registry.all()] == ["weather"]
        with pytest.raises(AgentNotFound):
            await registry.get("default", "huge")
    finally:
        engine.dispose()
