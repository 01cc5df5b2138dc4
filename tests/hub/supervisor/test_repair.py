"""What a crash leaves between journal and engine is mended at the next start; teams work outside of runs too."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sqlite3 import connect

import anyio
import pytest
import sqlalchemy as sa

from interhub.adapters import (
    Call,
    Completed,
    InputRequired,
    Message,
    Outcome,
    Progress,
    RemoteCanceled,
    RemoteUnavailable,
    Report,
    Resume,
    Role,
    TaskBound,
    TextPart,
    Update,
    text_of,
)
from interhub.adapters.testing import ScriptedAgent, Turn, answer, question
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.engine_memory import MemoryEngine
from interhub.hub.supervisor.run import Answer, EventKind, RunState
from interhub.registry.database import events, open_database, questions, runs
from tests.support.supervised import ALICE, World, echo, supervised

pytestmark = pytest.mark.anyio

ONE_STEP = "steps: [{id: w, call: {agent: one, message: x}}]"


def fresh(directory: Path) -> DbosEngine:
    return DbosEngine(f"sqlite:///{directory / 'engine.db'}")


def change(directory: Path, *statements: sa.Executable) -> None:
    """Do to the journal what a crash of the machine does."""
    database = open_database(f"sqlite:///{directory / 'interhub.db'}")
    with database.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    database.dispose()


async def test_a_run_that_was_written_but_not_started_is_started(tmp_path: Path) -> None:
    async with supervised(tmp_path, echo("one"), engine=fresh(tmp_path)) as world:
        run = await world.done(await world.run(workflow=ONE_STEP))
    (tmp_path / "engine.db").unlink()
    for ending in ("-wal", "-shm"):
        (tmp_path / f"engine.db{ending}").unlink(missing_ok=True)
    change(
        tmp_path,
        sa.delete(events).where(events.c.seq > 1),
        sa.update(runs).values(state="submitted", generation=1, outcome=None, ended_at=None),
    )
    one = echo("one")
    async with supervised(tmp_path, one, engine=fresh(tmp_path)) as world:
        run = await world.done(run)
        assert run.state is RunState.COMPLETED
        assert len(one.calls) == 1


async def test_a_run_whose_end_the_journal_lost_gets_the_end_that_the_engine_knows(tmp_path: Path) -> None:
    async with supervised(tmp_path, echo("one"), engine=fresh(tmp_path)) as world:
        run = await world.done(await world.run(workflow=ONE_STEP))
        last = run.generation
    change(
        tmp_path,
        sa.delete(events).where(events.c.seq == last),
        sa.update(runs).values(state="working", generation=last - 1, outcome=None, ended_at=None),
    )
    one = echo("one")
    async with supervised(tmp_path, one, engine=fresh(tmp_path)) as world:
        run = await world.done(run)
        assert text_of(run.parts) == "one heard: x"
        assert one.calls == []
        assert run.generation == last


async def test_an_answer_that_was_taken_but_not_delivered_is_delivered(tmp_path: Path) -> None:
    def asker() -> ScriptedAgent:
        return ScriptedAgent("asker").on("ask", question("?"), answer("thanks"))

    async with supervised(tmp_path, asker(), engine=fresh(tmp_path)) as world:
        run = await world.done(await world.run("x", agent="asker"))
        asked = run.questions[0].id
    given = {"parts": [{"text": "yes"}], "accepted": True, "by": "default/alice", "question": asked}
    change(tmp_path, sa.update(questions).values(state="answered", answer=given, answered_by="default/alice"))
    agent = ScriptedAgent("asker").on("ask", answer("thanks"))
    async with supervised(tmp_path, agent, engine=fresh(tmp_path)) as world:
        with anyio.fail_after(10):
            kinds = [event.kind async for event in world.supervisor.watch(ALICE, run.id)]
        assert kinds[-1] is EventKind.RUN_COMPLETED
        assert agent.calls[0].resume is not None
        assert text_of(agent.calls[0].resume.answer) == "yes"


async def test_a_cancellation_that_a_crash_cut_off_is_finished_and_the_agent_told(tmp_path: Path) -> None:
    slow = ScriptedAgent("one", keeps_tasks=True).on("talk", Turn(until=anyio.Event()))
    engine = fresh(tmp_path)
    async with supervised(tmp_path, slow, engine=engine) as world:
        run = await world.run(workflow=ONE_STEP)
        with anyio.fail_after(10):
            async for event in world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_BOUND:
                    break
        await engine.cancel(run.id)
        change(tmp_path, sa.text("CREATE TABLE kept AS SELECT key, remote_task, state FROM delegations"))
    # The hub was killed rather than stopped: it had no time to take note of its calls.
    change(
        tmp_path,
        sa.text("UPDATE delegations SET remote_task = (SELECT remote_task FROM kept), state = 'bound'"),
        sa.text("DROP TABLE kept"),
    )
    agent = echo("one")
    async with supervised(tmp_path, agent, engine=fresh(tmp_path)) as world:
        run = await world.supervisor.get(ALICE, run.id)
        assert run.state is RunState.CANCELED
        assert agent.cancel_requests == ["one-task-1"]


RETRIED = """
steps:
  - id: w
    call: {agent: one, message: x, timeout_s: 0.1, retry: {attempts: 3, backoff_s: %s, after: [timeout, unavailable]}}
"""


async def test_a_task_whose_time_was_up_is_not_turned_to_by_a_later_attempt(tmp_path: Path) -> None:
    async def play(call: Call, report: Report) -> Outcome:
        if len(agent.calls) == 1:
            await report(TaskBound(remote_task="T1"))
            await anyio.sleep_forever()
        if len(agent.calls) == 2:
            raise RemoteUnavailable("one", "it stumbles")
        return answer("done")

    agent = ScriptedAgent("one").on("talk", play)
    async with supervised(tmp_path, agent, engine=fresh(tmp_path)) as world:
        run = await world.done(await world.run(workflow=RETRIED % 0))
        assert run.state is RunState.COMPLETED
        assert [call.remote_task for call in agent.calls] == ["", "", ""]
        first, *others = [call.idempotency_key for call in agent.calls]
        assert others == [f"{first}~1"] * 2


async def test_a_crash_while_a_call_waits_for_its_next_attempt_makes_it_anew_and_counts_those_before(
    tmp_path: Path,
) -> None:
    async def play(call: Call, report: Report) -> Outcome:
        await report(TaskBound(remote_task=f"T{len(agent.calls)}"))
        await anyio.sleep_forever()
        raise AssertionError("it is stopped")

    agent = ScriptedAgent("one").on("talk", play)
    engine, later = MemoryEngine(), tmp_path / "later"
    later.mkdir()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.run(workflow=RETRIED % "0.1, factor: 10")
        with anyio.fail_after(10):
            async for event in world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_FAILED and event.attempt == 2:
                    break
        with closing(connect(tmp_path / "interhub.db")) as left, closing(connect(later / "interhub.db")) as taken:
            left.backup(taken)
        records = engine.cut(len(engine.order))
    keys = [call.idempotency_key for call in agent.calls]
    agent.calls.clear()
    async with supervised(later, agent, engine=(engine := MemoryEngine(records))) as world:
        await engine.start(run.id, {})
        run = await world.done(run)
        assert run.error is not None
        assert run.error.reason == "AGENT_TIMEOUT"
        assert agent.calls[0].remote_task == ""
        assert agent.calls[0].idempotency_key not in keys
        assert len(agent.calls) == 1, "two attempts had failed before the crash: the third is the last"


async def test_a_pickle_in_the_engines_database_is_not_read() -> None:
    from dbos._serialization import DefaultSerializer  # pyright: ignore[reportPrivateUsage] -- what is blocked

    with pytest.raises(ValueError, match="pickled"):
        DefaultSerializer().deserialize("gASVAAAA")


# The direct path

TEAM = "{kind: team, name: crew, members: [asker], planner: route}"


async def direct(world: World, updates: list[Update], resume: Resume | None = None, key: str = "k") -> Outcome:
    agent = await world.registry.get("default", "crew")

    async def report(update: Update) -> None:
        updates.append(update)

    goal = Message(role=Role.USER, parts=(TextPart(text="ask somebody a question"),))
    call = Call(capability="ask", message=goal, principal=ALICE, idempotency_key=key, resume=resume)
    return await world.dispatcher.call(agent, call, report)


async def test_a_team_called_directly_asks_and_is_answered_as_any_agent(tmp_path: Path) -> None:
    async def ask(call: Call, report: Report) -> Outcome:
        return question("Sure?") if call.resume is None else answer(text_of(call.resume.answer))

    asker = ScriptedAgent("asker").on("ask", ask, description="ask somebody a question")
    async with supervised(tmp_path, asker, engine=fresh(tmp_path), documents=(TEAM,)) as world:
        updates: list[Update] = []
        outcome = await direct(world, updates)
        assert isinstance(outcome, InputRequired)
        assert text_of(outcome.question) == "Sure?"
        assert isinstance(updates[0], TaskBound)
        again = await direct(world, [])
        assert isinstance(again, InputRequired), "the same key is the same run"
        resume = Resume(answer=(TextPart(text="quite"),), state=outcome.state)
        outcome = await direct(world, updates, resume)
        assert isinstance(outcome, Completed)
        assert text_of(outcome.parts) == "quite"
        assert any(isinstance(update, Progress) for update in updates)
        assert len(await world.supervisor.list(ALICE)) == 1


async def test_a_direct_call_that_is_cancelled_cancels_its_run(tmp_path: Path) -> None:
    asker = ScriptedAgent("asker").on("ask", Turn(until=anyio.Event()), description="ask somebody a question")
    async with supervised(tmp_path, asker, engine=fresh(tmp_path), documents=(TEAM,)) as world:
        async with anyio.create_task_group() as tasks:
            nothing: list[Update] = []
            tasks.start_soon(direct, world, nothing)
            with anyio.fail_after(10):
                await asker.wait_for_calls(1)
            tasks.cancel_scope.cancel()
        [run] = await world.supervisor.list(ALICE)
        assert run.state is RunState.CANCELED
        assert len(asker.canceled) == 1
        with pytest.raises(RemoteCanceled):
            await direct(world, [])


async def test_an_answer_is_bound_to_the_one_who_gives_it(tmp_path: Path) -> None:
    asker = ScriptedAgent("asker").on("ask", question("?"), answer("ok"))
    async with supervised(tmp_path, asker, engine=fresh(tmp_path)) as world:
        run = await world.done(await world.run("x", agent="asker"))
        by = replace(ALICE, scopes=frozenset({"answer"}))
        await world.supervisor.answer(ALICE, run.id, Answer(parts=(TextPart(text="y"),), by=by))
        run = await world.done(run)
        answered = [e for e in await world.supervisor.events(ALICE, run.id) if e.kind is EventKind.QUESTION_ANSWERED]
        assert answered[0].payload["by"] == "default/alice"
