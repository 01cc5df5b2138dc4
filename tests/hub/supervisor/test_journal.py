"""The journal: numbered without gaps, each fact once, closed by the final event."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import sqlalchemy as sa

from interhub.hub.supervisor import records
from interhub.hub.supervisor.journal import Fact, Journal
from interhub.hub.supervisor.records import RunRecord
from interhub.hub.supervisor.run import EventKind, RunState
from interhub.registry import DatabaseAway
from interhub.registry.database import events, open_database, reading
from tests.support.postgres import postgres_server

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def journal_in(url: str) -> AsyncGenerator[tuple[Journal, sa.Engine]]:
    database = open_database(url)
    journal = Journal(database)
    journal.open()
    try:
        yield journal, database
    finally:
        await journal.close()
        database.dispose()


async def begin(journal: Journal, run_id: str) -> None:
    at = datetime.now(UTC)
    record = RunRecord(
        id=run_id,
        tenant="default",
        subject="alice",
        context_id="c",
        agent_id="",
        goal="",
        spec={},
        state=RunState.SUBMITTED,
        outcome=None,
        created_at=at,
        updated_at=at,
        ended_at=None,
        generation=0,
    )
    await journal.write(lambda connection: records.add_run(connection, record))


async def test_events_are_numbered_from_one_without_gaps_also_when_many_write_at_once(database_url: str) -> None:
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")
        await begin(journal, "b")

        async def write(run_id: str, step: str) -> None:
            for n in range(20):
                fact = Fact(run_id=run_id, kind=EventKind.STEP_PROGRESS, step=step, attempt=1, n=n)
                if n % 3:
                    journal.post(fact)
                else:
                    await journal.append(fact)

        async with anyio.create_task_group() as tasks:
            for run_id in ("a", "b"):
                for step in ("x", "y", "z"):
                    tasks.start_soon(write, run_id, step)
        await journal.flush()
        for run_id in ("a", "b"):
            read = await journal.read(run_id)
            assert [event.seq for event in read] == list(range(1, 61))
            for step in ("x", "y", "z"):
                assert [event.n for event in read if event.step == step] == list(range(20))


async def test_a_fact_told_twice_is_written_once(database_url: str) -> None:
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")
        fact = Fact(run_id="a", kind=EventKind.STEP_STARTED, step="x", attempt=1)
        await journal.append(fact, fact)
        await journal.append(fact)
        await journal.append(Fact(run_id="a", kind=EventKind.STEP_STARTED, step="x", attempt=2))
        assert [(event.seq, event.attempt) for event in await journal.read("a")] == [(1, 1), (2, 2)]


async def test_nothing_is_written_after_the_final_event_or_for_an_unknown_run(database_url: str) -> None:
    async with journal_in(database_url) as (journal, database):
        await begin(journal, "a")
        final = Fact(run_id="a", kind=EventKind.RUN_COMPLETED, payload={"result": {}})
        late = Fact(run_id="a", kind=EventKind.STEP_PROGRESS, step="x", attempt=1)
        await journal.append(final, late, Fact(run_id="a", kind=EventKind.RUN_CANCELED))
        await journal.append(Fact(run_id="nobody", kind=EventKind.RUN_STARTED))
        assert [event.kind for event in await journal.read("a")] == [EventKind.RUN_COMPLETED]
        assert await journal.read("nobody") == ()
        with database.connect() as connection:
            run = records.find_run(connection, "a")
        assert run is not None
        assert (run.state, run.generation, run.outcome) == (RunState.COMPLETED, 1, {"result": {}})
        assert run.ended_at == final.at


async def test_one_bad_write_harms_no_other(database_url: str) -> None:
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")

        def break_off(connection: sa.Connection) -> None:
            raise ValueError("this change is wrong")

        journal.post(Fact(run_id="a", kind=EventKind.RUN_STARTED))
        with pytest.raises(ValueError, match="wrong"):
            await journal.write(break_off)
        await journal.append(Fact(run_id="a", kind=EventKind.STEP_STARTED, step="x", attempt=1))
        assert [event.seq for event in await journal.read("a")] == [1, 2]


async def test_readers_are_woken_by_a_commit(database_url: str) -> None:
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")
        news = journal.subscription("a")
        other = journal.subscription("b")
        journal.post(Fact(run_id="a", kind=EventKind.RUN_STARTED))
        with anyio.fail_after(5):
            await news.wait()
        assert len(await journal.read("a")) == 1
        assert not other.is_set()
        assert journal.subscription("a") is not news


async def test_reading_goes_on_after_a_number(database_url: str) -> None:
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")
        await journal.append(*(Fact(run_id="a", kind=EventKind.STEP_LOG, step="x", attempt=1, n=n) for n in range(10)))
        assert [event.seq for event in await journal.read("a", after=4, limit=3)] == [5, 6, 7]


async def test_a_dialogue_is_the_same_from_memory_and_from_the_database(database_url: str) -> None:
    kinds = (EventKind.QUESTION_ASKED, EventKind.STEP_LOG, EventKind.QUESTION_ANSWERED, EventKind.QUESTION_CLOSED)
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")
        await journal.append(*(Fact(run_id="a", kind=kind, step="x", n=n) for n in range(3) for kind in kinds))
        from_memory = [await journal.dialogue("a", upto=upto) for upto in (12, 7)]
    async with journal_in(database_url) as (journal, _):
        from_database = [await journal.dialogue("a", upto=upto) for upto in (12, 7, None)]
    assert from_memory == from_database[:2]
    assert [[event.seq for event in found] for found in from_database] == [
        [1, 3, 4, 5, 7, 8, 9, 11, 12],
        [1, 3, 4, 5, 7],
        [1, 3, 4, 5, 7, 8, 9, 11, 12],
    ]


async def test_what_was_posted_before_a_close_is_written(database_url: str) -> None:
    async with journal_in(database_url) as (journal, _):
        await begin(journal, "a")
        for n in range(100):
            journal.post(Fact(run_id="a", kind=EventKind.STEP_LOG, step="x", attempt=1, n=n))
    async with journal_in(database_url) as (journal, database):
        with database.connect() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(events)).scalar() == 100


async def test_the_final_event_closes_open_questions_before_it(database_url: str) -> None:
    from interhub.hub.supervisor.run import Question

    async with journal_in(database_url) as (journal, database):
        await begin(journal, "a")
        question = Question(id="q", run_id="a", step="x", agent_id="b", parts=(), asked_at=datetime.now(UTC))
        await journal.write(lambda connection: records.ask(connection, question, {"parts": []}, attempt=1, digest=""))
        await journal.append(Fact(run_id="a", kind=EventKind.QUESTION_ASKED, step="x", attempt=1))
        with database.connect() as connection:
            asking = records.find_run(connection, "a")
        assert asking is not None
        assert asking.state is RunState.INPUT_REQUIRED
        await journal.append(Fact(run_id="a", kind=EventKind.RUN_CANCELED))
        kinds = [event.kind for event in await journal.read("a")]
        assert kinds == [EventKind.QUESTION_ASKED, EventKind.QUESTION_CLOSED, EventKind.RUN_CANCELED]


async def test_what_is_written_while_the_server_is_away_waits_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interhub.registry.database.RECONNECT_S", 0.0)
    told = [Fact(run_id="a", kind=EventKind.STEP_LOG, step="x", attempt=1, n=n) for n in range(4)]
    with postgres_server() as server:
        async with journal_in(server.url) as (journal, database):
            await begin(journal, "a")
            news = journal.subscription("a")
            server.stop()
            with pytest.raises(DatabaseAway, match="cannot be reached"), reading(database):
                pass
            journal.post(*told[:2])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(journal.append, told[2])
                await anyio.to_thread.run_sync(server.start)
            assert [event.n for event in await journal.read("a")] == [0, 1, 2]
            assert news.is_set()

            server.stop()
            lost = pytest.raises(DatabaseAway)
            async with anyio.create_task_group() as tasks:

                async def tell() -> None:
                    with lost:
                        await journal.append(told[3])

                tasks.start_soon(tell)
                await anyio.lowlevel.checkpoint()
                with anyio.fail_after(10):
                    await journal.close()


async def test_a_closed_journal_takes_nothing_and_says_so(tmp_path: Path) -> None:
    async with journal_in(f"sqlite:///{tmp_path / 'interhub.db'}") as (journal, _):
        await begin(journal, "a")
        await journal.close()
        with anyio.fail_after(5), pytest.raises(DatabaseAway, match="stopping"):
            await journal.append(Fact(run_id="a", kind=EventKind.STEP_LOG, step="x", attempt=1, n=0))
