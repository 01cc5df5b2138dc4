"""Runs of one A2A call that somebody waits for: told as others are, kept by the journal alone, never made twice."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from sqlite3 import connect

import anyio
import pytest

from interhub.adapters import (
    Artifact,
    ArtifactChunk,
    Call,
    Completed,
    Message,
    Outcome,
    Progress,
    RemoteRejected,
    RemoteUnavailable,
    Report,
    Role,
    TaskBound,
    TextPart,
    text_of,
)
from interhub.adapters.content import artifact_from_json
from interhub.adapters.pool import ConnectionPool
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent, answer, question
from interhub.agent_cards import Binding, Endpoint, JsonObject
from interhub.hub.audit import MemoryAuditLog
from interhub.hub.dispatch import Dispatcher
from interhub.hub.policy import TenantPolicy
from interhub.hub.supervisor.engine_memory import MemoryEngine
from interhub.hub.supervisor.envelope import mapping
from interhub.hub.supervisor.run import Answer, Assignment, Event, EventKind, Run, RunState
from interhub.hub.supervisor.supervisor import Supervisor
from interhub.registry import MemoryRegistry
from interhub.registry.database import open_database
from interhub.registry.search import Index
from tests.support.supervised import ALICE, World

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def hub(
    directory: Path, agent: ScriptedAgent, engine: MemoryEngine, *, short_runs: bool = True
) -> AsyncGenerator[World]:
    """A supervisor that makes short runs, and one agent that it takes for an A2A agent."""
    registry, index, audit = MemoryRegistry(), Index(), MemoryAuditLog()
    database = open_database(f"sqlite:///{directory / 'interhub.db'}")
    async with ConnectionPool(close_s=0.5) as pool:
        adapters = {"scripted": ScriptedAdapter(agent)}
        dispatcher = Dispatcher(adapters=adapters, pool=pool, policy=TenantPolicy(), audit=audit)
        supervisor = Supervisor(
            registry=registry,
            index=index,
            dispatcher=dispatcher,
            database=database,
            engine=engine,
            short_runs=short_runs,
        )
        world = World(supervisor, dispatcher, registry, index, audit)
        endpoint = Endpoint(binding=Binding.A2A_JSONRPC, url=f"scripted:{agent.name}")
        await world.add(agent.name, "scripted", agent.card, endpoint)
        await supervisor.start()
        try:
            yield world
        finally:
            await supervisor.stop()
            database.dispose()


async def submit(world: World, key: str = "once", *, waited: bool = True, agent: str = "far") -> Run:
    goal = Message(role=Role.USER, parts=(TextPart(text="go"),))
    return await world.supervisor.submit(
        Assignment(principal=ALICE, goal=goal, agent_id=agent, idempotency_key=key, waited=waited)
    )


class SlowEngine(MemoryEngine):
    """Starts runs when it is let, or cannot start them."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.let = anyio.Event()
        self._fault = fault

    async def start(self, run_id: str, given: JsonObject, *, tenant: str = "") -> None:
        await self.let.wait()
        if self._fault:
            raise RuntimeError(self._fault)
        await super().start(run_id, given, tenant=tenant)


async def test_a_run_that_is_waited_for_is_there_before_the_engine_has_it_and_may_be_canceled(tmp_path: Path) -> None:
    calls: list[str] = []

    async def play(call: Call, report: Report) -> Outcome:
        calls.append(call.idempotency_key)
        await anyio.sleep_forever()
        raise AssertionError

    engine = SlowEngine()
    async with hub(tmp_path, far(play), engine) as world, anyio.create_task_group() as tasks:
        with anyio.fail_after(5):
            run = await submit(world, agent="")
            again = await submit(world, agent="")
            assert again.id == run.id
            assert run.state is again.state is RunState.SUBMITTED
            tasks.start_soon(world.supervisor.cancel, ALICE, run.id)
            await anyio.wait_all_tasks_blocked()
            assert (await world.supervisor.get(ALICE, run.id)).state is RunState.SUBMITTED
            engine.let.set()
            assert (await world.done(run)).state is RunState.CANCELED
        assert list(engine.records) == [run.id]


async def test_a_run_that_the_engine_cannot_take_is_told_to_have_failed(tmp_path: Path) -> None:
    engine = SlowEngine("no engine")
    async with hub(tmp_path, far(answered), engine) as world:
        run = await submit(world, agent="")
        engine.let.set()
        done = await world.done(run)
    assert done.state is RunState.FAILED
    assert done.error is not None
    assert done.error.reason == "INTERNAL"
    assert "no engine" not in done.error.message


async def answered(call: Call, report: Report) -> Outcome:
    return answer("done")


def far(play: Callable[[Call, Report], object]) -> ScriptedAgent:
    return ScriptedAgent("far").on("do", play, description="do it")  # type: ignore[arg-type]  # a play is a coroutine


async def test_it_is_told_as_a_run_of_the_engine_is_and_leaves_no_record_there(tmp_path: Path) -> None:
    async def play(call: Call, report: Report) -> Outcome:
        await report(TaskBound(remote_task="t"))
        return answer("done")

    engine = MemoryEngine()
    async with hub(tmp_path, far(play), engine) as world:
        short = await world.done(await submit(world))
        assert engine.records == {}
        long = await world.done(await submit(world, "other", waited=False))
        assert list(engine.records) == [long.id]
        told = [[event.kind for event in await world.supervisor.events(ALICE, run.id)] for run in (short, long)]
    assert short.state is long.state is RunState.COMPLETED
    assert (short.parts, [step.agent_id for step in short.steps]) == (long.parts, ["far"])
    assert told[0] == told[1]


@pytest.mark.parametrize("fails", [False, True])
async def test_its_end_is_told_alike_to_one_who_waits_and_to_one_who_asks_afterwards(
    tmp_path: Path, fails: bool
) -> None:
    async def play(call: Call, report: Report) -> Outcome:
        await report(TaskBound(remote_task="t"))
        await report(ArtifactChunk(artifact=Artifact(artifact_id="a", parts=(TextPart(text="made"),))))
        if fails:
            raise RemoteRejected("far", "no")
        return answer("done")

    async with hub(tmp_path, far(play), MemoryEngine()) as world:
        waited = await world.done(await submit(world))
        assert waited.state is (RunState.REJECTED if fails else RunState.COMPLETED)
        assert await world.supervisor.get(ALICE, waited.id) == waited
        assert await world.supervisor.wait(ALICE, waited.id) == waited


async def test_the_same_message_twice_at_once_is_one_call(tmp_path: Path) -> None:
    calls: list[str] = []
    go_on = anyio.Event()

    async def play(call: Call, report: Report) -> Outcome:
        calls.append(call.idempotency_key)
        await go_on.wait()
        return answer("done")

    async with hub(tmp_path, far(play), MemoryEngine()) as world:
        first, second = await submit(world), await submit(world)
        go_on.set()
        assert (await world.done(second)).state is RunState.COMPLETED
    assert first.id == second.id
    assert len(calls) == 1


async def test_a_question_is_asked_by_the_engine_and_the_agent_is_asked_for_its_task(tmp_path: Path) -> None:
    seen: list[str] = []

    async def play(call: Call, report: Report) -> Outcome:
        seen.append(call.remote_task or ("answer" if call.resume else "new"))
        if call.resume is not None:
            return answer("done")
        await report(TaskBound(remote_task="t"))
        return question("Go on?", state={"taskId": "t"})

    engine = MemoryEngine()
    async with hub(tmp_path, far(play), engine) as world:
        run = await world.done(await submit(world))
        assert run.state is RunState.INPUT_REQUIRED
        assert list(engine.records) == [run.id]
        await world.supervisor.answer(ALICE, run.id, Answer(parts=(TextPart(text="yes"),), by=ALICE))
        assert (await world.done(run)).state is RunState.COMPLETED
    assert seen == ["new", "t", "answer"]


async def test_one_that_a_crash_left_is_taken_up_where_its_agent_is(tmp_path: Path) -> None:
    seen: list[str] = []
    bound = anyio.Event()

    async def play(call: Call, report: Report) -> Outcome:
        seen.append(call.remote_task or "new")
        if call.remote_task:
            return answer("done")
        await report(TaskBound(remote_task="t"))
        bound.set()
        await anyio.sleep_forever()
        raise AssertionError("it waits for the end of the hub")

    async with hub(tmp_path, far(play), MemoryEngine()) as world:
        run = await submit(world)
        with anyio.fail_after(5):
            await bound.wait()
        left = as_a_kill_leaves_it(tmp_path)
    async with hub(left, far(play), MemoryEngine()) as world:
        assert (await world.done(run)).state is RunState.COMPLETED
    assert seen == ["new", "t"]


async def test_what_an_agent_makes_after_a_crash_reaches_those_who_follow_its_chunks(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def play(call: Call, report: Report) -> Outcome:
        if call.remote_task:  # asked for again, it shows the whole, and goes on
            await report(piece("1 2 3 4 "))
            await report(Progress(text="nearly"))
            await report(piece("5", append=True))
            return Completed(artifacts=(piece("1 2 3 4 5").artifact,))
        await report(TaskBound(remote_task="t"))
        await report(Progress(text="begun"))
        await report(piece("1 "))
        await report(piece("2 ", append=True))
        await report(piece("3 ", append=True))
        await gate.wait()
        raise AssertionError("it waits for the end of the hub")

    async with hub(tmp_path, far(play), MemoryEngine()) as world:
        run = await submit(world)
        with anyio.fail_after(5):
            async for event in world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_ARTIFACT and event.n == 2:
                    break
        left = as_a_kill_leaves_it(tmp_path)
    async with hub(left, far(play), MemoryEngine()) as world:
        done = await world.done(run)
        events = await world.supervisor.events(ALICE, run.id)
    assert followed(events) == {artifact.artifact_id: text_of(artifact.parts) for artifact in done.artifacts}
    assert list(followed(events).values()) == ["1 2 3 4 5"]
    progress = [event.payload["text"] for event in events if event.kind is EventKind.STEP_PROGRESS]
    assert progress == ["begun", "nearly"]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {step.attempts for step in done.steps} == {1}


async def test_a_call_that_is_made_anew_after_a_stop_makes_its_artifacts_anew(tmp_path: Path) -> None:
    told = anyio.Event()

    async def begin(call: Call, report: Report) -> Outcome:
        await report(TaskBound(remote_task="first"))
        for word in ("a ", "b ", "c "):
            await report(piece(word, append=True))
        told.set()
        await anyio.sleep_forever()
        raise AssertionError("it waits for the end of the hub")

    async def again(call: Call, report: Report) -> Outcome:
        await report(TaskBound(remote_task="second"))
        await report(piece("x ", append=True))
        await report(piece("y", append=True))
        return Completed(artifacts=(piece("x y").artifact,))

    async with hub(tmp_path, far(begin), MemoryEngine()) as world:
        run = await submit(world)
        with anyio.fail_after(5):
            await told.wait()
    async with hub(tmp_path, far(again), MemoryEngine()) as world:
        assert (await world.done(run)).state is RunState.COMPLETED
        events = await world.supervisor.events(ALICE, run.id)
    assert list(followed(events).values()) == ["x y"]
    bound = [event.payload["remote_task"] for event in events if event.kind is EventKind.STEP_BOUND]
    assert bound == ["first", "second"]


async def test_a_failure_that_was_waited_out_when_the_hub_was_killed_does_not_hide_the_last_one(tmp_path: Path) -> None:
    plan = "steps: [{id: w, call: {agent: far, message: x, retry: {attempts: 2, backoff_s: 100}}}]"
    down = ScriptedAgent("far").on("do", RemoteUnavailable("far", "it sleeps"))
    refusing = ScriptedAgent("far").on("do", RemoteRejected("far", "no"))
    async with hub(tmp_path, down, engine := MemoryEngine()) as world:
        run = await world.run(workflow=plan)
        with anyio.fail_after(5):
            async for event in world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_FAILED:
                    break
        left, records = as_a_kill_leaves_it(tmp_path), engine.cut(len(engine.order))
    async with hub(left, refusing, again := MemoryEngine(records)) as world:
        await again.start(run.id, {})
        done = await world.done(run)
    assert [(step.attempts, step.state, step.error) for step in done.steps] == [
        (2, RunState.FAILED, "far rejected the task: no")
    ]


def piece(text: str, *, append: bool = False) -> ArtifactChunk:
    return ArtifactChunk(artifact=Artifact(artifact_id="doc", parts=(TextPart(text=text),)), append=append)


def followed(events: Sequence[Event]) -> dict[str, str]:
    """What somebody has in the end who was told of the artifacts by their chunks alone."""
    made: dict[str, str] = {}
    for event in events:
        if event.kind is EventKind.STEP_ARTIFACT:
            artifact = artifact_from_json(mapping(event.payload["artifact"]))
            before = made.get(artifact.artifact_id, "") if event.payload["append"] else ""
            made[artifact.artifact_id] = before + text_of(artifact.parts)
    return made


def as_a_kill_leaves_it(directory: Path) -> Path:
    """Copy the database as it is now to a directory of its own: what a process that is killed leaves behind."""
    left = directory / "left"
    left.mkdir()
    with closing(connect(directory / "interhub.db")) as before, closing(connect(left / "interhub.db")) as after:
        before.backup(after)
    return left


async def test_a_canceled_one_stops_its_agent_and_stays_canceled(tmp_path: Path) -> None:
    begun, stopped = anyio.Event(), anyio.Event()

    async def play(call: Call, report: Report) -> Outcome:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
        raise AssertionError("it waits to be canceled")

    async with hub(tmp_path, far(play), MemoryEngine()) as world:
        run = await submit(world)
        with anyio.fail_after(5):
            await begun.wait()
            assert (await world.supervisor.cancel(ALICE, run.id)).state is RunState.CANCELED
            await stopped.wait()
        assert (await world.done(run)).state is RunState.CANCELED
