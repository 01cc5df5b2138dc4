"""What is removed, and what never is."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from interhub.adapters import Budget, Call, Outcome, Report
from interhub.adapters.testing import ScriptedAgent, answer, question
from interhub.hub.bus import NoBus
from interhub.hub.errors import RunNotFound
from interhub.hub.guards import SqlAccounts
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.retention import Retention, Rules
from interhub.hub.triggers.store import Occurrence, TriggerStore
from interhub.registry.database import (
    audit,
    blob_uses,
    blobs,
    deliveries,
    metadata,
    occurrences,
    open_database,
    runs,
    tree_accounts,
    writing,
)
from tests.support.supervised import ALICE, World, echo, supervised

pytestmark = pytest.mark.anyio

LARGE = "x" * 200_000


def asker() -> ScriptedAgent:
    async def ask(call: Call, report: Report) -> Outcome:
        return question("Go on?") if call.resume is None else answer("went on")

    return ScriptedAgent("asker").on("ask", ask, description="ask")


def large() -> ScriptedAgent:
    async def give(call: Call, report: Report) -> Outcome:
        return answer(LARGE)

    return ScriptedAgent("large").on("give", give, description="give much")


async def finished(world: World, agent: str = "echo") -> str:
    run = await world.done(await world.run("say", agent=agent))
    return run.id


class Kept:
    """What is in a directory's databases."""

    def __init__(self, directory: Path, engine: DbosEngine) -> None:
        self.database = open_database(f"sqlite:///{directory / 'interhub.db'}")
        self.engine_database = sa.create_engine(engine.url)
        self.retention = Retention(database=self.database, engine=engine)

    def age(self, run_id: str, days: float) -> None:
        """Have a run end that many days ago."""
        at = datetime.now(UTC) - timedelta(days=days)
        with writing(self.database) as connection:
            connection.execute(sa.update(runs).where(runs.c.id == run_id).values(ended_at=at))
            connection.execute(sa.update(blobs).values(created_at=at))

    def tables(self, run_id: str) -> set[str]:
        """The tables that still name a run, the engine's included."""
        found: set[str] = set()
        with self.database.connect() as connection:
            for table in metadata.sorted_tables:
                column = table.c.get("run_id") if table is not runs else table.c.id
                if column is not None and connection.execute(sa.select(table).where(column == run_id)).first():
                    found.add(table.name)
        query = sa.text("SELECT 1 FROM workflow_status WHERE workflow_uuid = :id OR workflow_uuid LIKE :id || '.%'")
        with self.engine_database.connect() as connection:
            if connection.execute(query, {"id": run_id}).first():
                found.add("engine")
        return found

    def close(self) -> None:
        self.database.dispose()
        self.engine_database.dispose()


async def test_a_run_goes_with_all_that_is_its_own_and_open_ones_stay(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("echo"), asker(), engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            old, new, waiting = await finished(world), await finished(world), await finished(world, "asker")
            kept.age(old, 10)
            with writing(kept.database) as connection:
                long_ago = datetime.now(UTC) - timedelta(days=1000)
                connection.execute(sa.update(runs).where(runs.c.id == waiting).values(created_at=long_ago))

            shown = await kept.retention.collect(Rules(runs_days=5), dry_run=True)
            assert (shown.runs, kept.tables(old)) == (1, {"runs", "events", "engine"})
            assert shown.events > 3

            removed = await kept.retention.collect(Rules(runs_days=5))
            assert removed == shown
            assert kept.tables(old) == set()
            assert {"runs", "events", "engine"} <= kept.tables(new)
            assert {"runs", "events", "questions", "engine"} <= kept.tables(waiting)
            with pytest.raises(RunNotFound):
                await world.supervisor.get(ALICE, old)

            assert (await kept.retention.collect(Rules(runs_days=0, runs_per_tenant=0))).runs == 1
            assert "runs" in kept.tables(waiting), "it has not ended"
        finally:
            kept.close()


async def test_of_each_tenant_the_newest_are_kept(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("echo"), engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            ids = [await finished(world) for _ in range(4)]
            for days, run_id in enumerate(ids):
                kept.age(run_id, days + 1)
            with writing(kept.database) as connection:
                connection.execute(sa.update(runs).where(runs.c.id == ids[3]).values(tenant="other"))
            removed = await kept.retention.collect(Rules(runs_per_tenant=1))
            assert removed.runs == 2
            assert [bool(kept.tables(run_id)) for run_id in ids] == [True, False, False, True]
        finally:
            kept.close()


async def test_more_runs_are_removed_than_a_statement_has_parameters(tmp_path: Path, engine: DbosEngine) -> None:
    most = 300

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most)

    async with supervised(tmp_path, echo("echo"), engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            run_id = await finished(world)
            kept.age(run_id, 10)
            with writing(kept.database) as connection:
                row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().one()
                connection.execute(sa.insert(runs), [{**row, "id": f"{run_id[:-4]}{n:04}"} for n in range(most)])
            kept.database.dispose()
            event.listen(kept.database, "connect", limit)
            assert (await kept.retention.collect(Rules(runs_days=5))).runs == most + 1
            assert kept.tables(run_id) == set()
        finally:
            kept.close()


async def test_a_large_value_stays_as_long_as_one_run_uses_it(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, large(), engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            first, second = await finished(world, "large"), await finished(world, "large")
            with kept.database.connect() as connection:
                users = connection.execute(sa.select(blob_uses.c.run_id)).scalars().all()
            assert {first, second} == set(users)
            kept.age(first, 10)
            removed = await kept.retention.collect(Rules(runs_days=5))
            assert (removed.runs, removed.blobs) == (1, 0)
            run = await world.supervisor.get(ALICE, second)
            assert str(run.parts[0]).count("x") >= len(LARGE)

            kept.age(second, 10)
            shown = await kept.retention.collect(Rules(runs_days=5), dry_run=True)
            assert shown.blobs >= 1
            assert shown.blob_bytes > len(LARGE)
            await kept.retention.collect(Rules(runs_days=5))
            with kept.database.connect() as connection:
                assert connection.execute(sa.select(blobs.c.id)).all() == []
        finally:
            kept.close()


async def test_what_was_just_put_is_not_swept_though_no_run_uses_it(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, engine=engine):
        kept = Kept(tmp_path, engine)
        try:
            with writing(kept.database) as connection:
                for name, hours in (("sha256:new", 0), ("sha256:old", 2)):
                    at = datetime.now(UTC) - timedelta(hours=hours)
                    connection.execute(
                        sa.insert(blobs).values(id=name, media_type="text/plain", size=1, bytes=b"x", created_at=at)
                    )
            assert (await kept.retention.collect(Rules(runs_days=5))).blobs == 1
            with kept.database.connect() as connection:
                assert connection.execute(sa.select(blobs.c.id)).scalars().all() == ["sha256:new"]
        finally:
            kept.close()


async def test_old_audit_records_go_and_without_rules_nothing_does(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("echo"), engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            run_id = await finished(world)
            kept.age(run_id, 10_000)
            row: dict[str, object] = {
                "tenant": "default", "subject": "a", "action": "b", "target": "c",
                "decision": "allow", "outcome": "", "duration_ms": 1, "detail": {},
            }  # fmt: skip
            with writing(kept.database) as connection:
                # One that is ahead of its time, and more old ones than are removed at once.
                ages = [timedelta(days=days) for days in (-900, *[100] * 25_000, 1)]
                connection.execute(sa.insert(audit), [{"at": datetime.now(UTC) - age, **row} for age in ages])
            nothing = await kept.retention.collect(Rules())
            assert (nothing.runs, nothing.blobs, nothing.audit) == (0, 0, 0)
            assert (await kept.retention.collect(Rules(audit_days=30))).audit == 25_000
            with kept.database.connect() as connection:
                assert connection.execute(sa.select(sa.func.count()).select_from(audit)).scalar() == 2
            assert "runs" in kept.tables(run_id)
        finally:
            kept.close()


async def test_what_runs_waited_for_goes_with_them_and_old_events_that_are_delivered_too(
    tmp_path: Path, engine: DbosEngine
) -> None:
    async with supervised(tmp_path, engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            store = TriggerStore(kept.database, bytes(32), NoBus())
            plan = "steps: [{id: paid, timeout_s: 0.05, on_error: continue, wait: {event: paid}}]"
            run = await world.done(await world.run(workflow=plan))
            assert "waits" in kept.tables(run.id)
            for name in ("old", "old-open", "new"):
                await store.take(Occurrence(tenant="default", source="", id=name, name="paid"), [""])
            past = datetime.now(UTC) - timedelta(days=10)
            with writing(kept.database) as connection:
                connection.execute(
                    sa.update(deliveries).where(deliveries.c.occurrence != "old-open").values(state="done")
                )
                for table, column in ((deliveries, deliveries.c.occurrence), (occurrences, occurrences.c.id)):
                    connection.execute(sa.update(table).where(column != "new").values(taken_at=past))
            kept.age(run.id, 10)
            assert (await kept.retention.collect(Rules(runs_days=5))).runs == 1
            assert kept.tables(run.id) == set()
            with kept.database.connect() as connection:
                left = connection.execute(sa.select(occurrences.c.id).order_by(occurrences.c.id)).scalars().all()
                assert left == ["new", "old-open"]
                assert sorted(connection.execute(sa.select(deliveries.c.occurrence)).scalars()) == left
        finally:
            kept.close()


async def test_what_was_counted_below_calls_goes_with_their_runs_and_stays_while_these_do(
    tmp_path: Path, engine: DbosEngine
) -> None:
    async with supervised(tmp_path, echo("echo"), asker(), engine=engine) as world:
        kept = Kept(tmp_path, engine)
        try:
            ended, open_run = await finished(world), await finished(world, "asker")
            keys = {f"{ended}/echo", f"{open_run}/asker", f"{open_run}/asker<", "a direct call", "a direct call of now"}
            accounts = SqlAccounts(kept.database)
            for key in keys:
                accounts.take(key, 1, Budget())
            old = datetime.now(UTC) - timedelta(days=10)
            with writing(kept.database) as connection:
                of_now = tree_accounts.c.key == "a direct call of now"
                connection.execute(sa.update(tree_accounts).where(~of_now).values(updated_at=old))
            kept.age(ended, 10)
            assert (await kept.retention.collect(Rules(runs_days=5))).runs == 1
            with kept.database.connect() as connection:
                left = set(connection.execute(sa.select(tree_accounts.c.key)).scalars())
            assert left == keys - {f"{ended}/echo", "a direct call"}
        finally:
            kept.close()
