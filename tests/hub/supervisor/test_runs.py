"""Plans carried out on the real engine by scripted agents."""

from pathlib import Path

import anyio
import anyio.from_thread
import pytest
from sqlalchemy import Connection

from interhub.adapters import (
    Artifact,
    ArtifactChunk,
    Budget,
    Call,
    Completed,
    DataPart,
    Message,
    Outcome,
    Progress,
    RemoteUnavailable,
    Report,
    Role,
    TextPart,
    text_of,
)
from interhub.adapters.testing import ScriptedAgent, Turn, answer, asked, refused
from interhub.agent_cards import Capability, JsonObject, Kind
from interhub.hub.errors import BadRequest, PlanInvalid, RunEnded, RunNotFound
from interhub.hub.supervisor import records
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import Assignment, Event, EventKind, Run, RunState
from interhub.registry import Agent, AgentNotFound
from tests.support.supervised import ALICE, BOB, World, echo, supervised

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> DbosEngine:
    """An engine, not yet launched, on each kind of database."""
    if request.param == "postgres":
        return DbosEngine(request.getfixturevalue("postgres_url"))
    return DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")


def words(run: Run) -> str:
    return text_of(run.parts)


def gapless(events: tuple[Event, ...]) -> bool:
    return [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_steps_run_in_order_and_later_ones_see_earlier_answers(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), echo("two"), engine=engine) as world:
        run = await world.run(
            "greet",
            workflow="""
            name: greeting
            steps:
              - {id: a, call: {agent: one, message: "say {{ goal }}"}}
              - {id: b, call: {agent: two, message: "after {{ steps.a.text }} by {{ steps.a.data.by }}"}}
            """,
        )
        run = await world.done(run)
        assert run.state is RunState.COMPLETED
        assert words(run) == "two heard: after one heard: say greet by one"
        assert [(step.path, step.agent_id, step.state, step.attempts) for step in run.steps] == [
            ("a", "one", RunState.COMPLETED, 1),
            ("b", "two", RunState.COMPLETED, 1),
        ]
        events = await world.supervisor.events(ALICE, run.id)
        assert gapless(events)
        assert [event.kind for event in events][:3] == [
            EventKind.RUN_SUBMITTED,
            EventKind.RUN_STARTED,
            EventKind.RUN_PLANNED,
        ]
        assert events[-1].kind is EventKind.RUN_COMPLETED
        assert run.generation == len(events)


async def test_parallel_steps_are_under_way_at_the_same_time(tmp_path: Path, engine: DbosEngine) -> None:
    both = anyio.Event()
    here: set[str] = set()

    async def meet(call: Call, report: Report) -> Outcome:
        here.add(asked(call))
        if len(here) == 2:
            both.set()
        with anyio.fail_after(5):
            await both.wait()
        return answer(asked(call))

    async with supervised(tmp_path, ScriptedAgent("host").on("meet", meet), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - id: meeting
                parallel:
                  - {id: left, call: {agent: host, message: L}}
                  - {id: right, call: {agent: host, message: R}}
            output: {who: "{{ steps.meeting.text }}", left: "{{ steps.left.text }}"}
            """
        )
        run = await world.done(run)
        assert run.structured == {"who": "L\nR", "left": "L"}
        assert [step.path for step in run.steps] == ["meeting.left", "meeting.right"]


async def test_a_plan_within_a_plan_has_its_own_inputs_and_steps(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), engine=engine) as world:
        run = await world.run(
            workflow="""
            inputs: {topic: string}
            steps:
              - id: outer
                plan:
                  inputs: {about: "{{ inputs.topic }} twice"}
                  workflow:
                    inputs: {about: string}
                    steps:
                      - {id: inner, call: {agent: one, message: "{{ inputs.about }}"}}
                    output: "<{{ steps.inner.text }}>"
            """,
            inputs={"topic": "rain"},
        )
        run = await world.done(run)
        assert words(run) == "<one heard: rain twice>"
        assert [(step.path, step.state) for step in run.steps] == [
            ("outer", RunState.COMPLETED),
            ("outer.inner", RunState.COMPLETED),
        ]


async def test_teams_nest_three_deep_and_everything_is_told_in_the_callers_run(
    tmp_path: Path, engine: DbosEngine
) -> None:
    documents = (
        "{kind: team, name: inner, members: [one], planner: route}",
        "{kind: team, name: middle, members: [inner], workflow: {steps: [{id: pass, call: {agent: inner}}]}}",
        "{kind: team, name: outer, members: [middle], workflow: {steps: [{id: down, call: {agent: middle, "
        "message: 'talk about {{ goal }}'}}]}}",
    )
    one = echo("one")
    async with supervised(tmp_path, one, engine=engine, documents=documents) as world:
        run = await world.done(await world.run("talk to one", agent="outer"))
        assert words(run) == "one heard: talk about talk to one"
        assert [step.path for step in run.steps] == ["down", "down.pass", "down.pass.one"]
        assert [step.agent_id for step in run.steps] == ["middle", "inner", "one"]
        assert [call.idempotency_key for call in one.calls] == [f"{run.id}/down.pass.one"]
        assert one.calls[0].budget.depth == Budget().depth - 3
        assert gapless(await world.supervisor.events(ALICE, run.id))


async def test_a_delegation_deeper_than_its_budget_fails(tmp_path: Path, engine: DbosEngine) -> None:
    documents = (
        "{kind: team, name: inner, members: [one], planner: route}",
        "{kind: team, name: outer, members: [inner], workflow: {steps: [{id: down, call: {agent: inner}}]}}",
    )
    one = echo("one")
    async with supervised(tmp_path, one, engine=engine, documents=documents) as world:
        run = await world.done(await world.run("talk to one", agent="outer", budget=Budget(depth=1)))
        assert run.error is not None
        assert run.error.reason == "BUDGET_EXCEEDED"
        assert one.calls == []


async def test_a_goal_alone_goes_to_whoever_can_do_it_best(tmp_path: Path, engine: DbosEngine) -> None:
    weather = ScriptedAgent("weather").on("forecast", answer("rain"), description="weather forecast for a city")
    cook = ScriptedAgent("cook").on("recipe", answer("soup"), description="find a recipe and cook a meal")
    async with supervised(tmp_path, weather, cook, engine=engine) as world:
        run = await world.done(await world.run("what is the weather forecast for the city of Bern"))
        assert words(run) == "rain"
        assert "forecast" in run.steps[0].why
        run = await world.done(await world.run("cook a meal from a recipe", members=["cook"]))
        assert words(run) == "soup"
        run = await world.done(await world.run("translate this contract into Finnish"))
        assert run.error is not None
        assert run.error.reason == "NO_CAPABLE_AGENT"


async def test_named_members_are_asked_however_little_the_goal_sounds_like_them(
    tmp_path: Path, engine: DbosEngine
) -> None:
    weather = ScriptedAgent("weather").on("forecast", answer("rain"), description="weather forecast for a city")
    cook = ScriptedAgent("cook").on("recipe", answer("soup"), description="find a recipe and cook a meal")
    async with supervised(tmp_path, weather, cook, engine=engine) as world:
        run = await world.done(await world.run("translate this contract into Finnish", members=["weather"]))
        assert words(run) == "rain"


async def test_a_tool_is_called_with_the_goals_words_where_it_has_one_text_input(
    tmp_path: Path, engine: DbosEngine
) -> None:
    schema: JsonObject = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    tool = Capability(name="search", kind=Kind.TOOL, description="search the library for books", input_schema=schema)
    library = ScriptedAgent("library", capabilities=[tool]).on("search", answer("Moby-Dick"), kind=Kind.TOOL)
    async with supervised(tmp_path, library, engine=engine) as world:
        run = await world.done(await world.run("search the library for books about whales"))
        assert words(run) == "Moby-Dick"
        assert library.calls[0].arguments == {"query": "search the library for books about whales"}


async def test_prompts_and_resources_are_called_by_their_names(tmp_path: Path, engine: DbosEngine) -> None:
    server = ScriptedAgent("server")
    for name, kind in (("greet", Kind.PROMPT), ("file:///a", Kind.RESOURCE)):
        server.on(name, answer("here"), kind=kind)
    async with supervised(tmp_path, server, engine=engine) as world:
        for name, arguments in (("greet", {"name": "Ann"}), ("file:///a", {})):
            goal = Message(role=Role.USER, parts=(TextPart(text="please"), DataPart(data=arguments)))
            run = await world.supervisor.submit(
                Assignment(principal=ALICE, goal=goal, agent_id="server", capability=name, arguments=arguments)
            )
            assert words(await world.done(run)) == "here"
    assert [(call.capability, call.kind) for call in server.calls] == [
        ("greet", Kind.PROMPT),
        ("file:///a", Kind.RESOURCE),
    ]
    assert server.calls[0].arguments == {"name": "Ann"}


async def test_a_failed_step_fails_the_run_and_stops_what_runs_beside_it(tmp_path: Path, engine: DbosEngine) -> None:
    bad = ScriptedAgent("bad").on("break", refused("no paper", by="bad"))
    slow = ScriptedAgent("slow").on("hang", Turn(until=anyio.Event()))
    after = echo("after")
    async with supervised(tmp_path, bad, slow, after, engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - parallel:
                  - {id: hang, call: {agent: slow, message: x}}
                  - {id: fail, call: {agent: bad, message: x}}
              - {id: later, call: {agent: after, message: x}}
            """
        )
        run = await world.done(run)
        assert run.error is not None
        assert (run.error.reason, run.error.step) == ("AGENT_REFUSED", "fail")
        assert "no paper" in run.error.message
        assert {step.path: step.state for step in run.steps} == {
            "hang": RunState.CANCELED,
            "fail": RunState.FAILED,
            "later": RunState.CANCELED,
        }
        assert slow.canceled == [f"{run.id}/hang"]
        assert after.calls == []


async def test_a_step_that_may_fail_lets_the_plan_go_on(tmp_path: Path, engine: DbosEngine) -> None:
    bad = ScriptedAgent("bad").on("break", refused("no paper", by="bad"))
    async with supervised(tmp_path, bad, echo("one"), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: try, on_error: continue, call: {agent: bad, message: x}}
              - id: group
                on_error: continue
                sequence:
                  - {id: breaks, call: {agent: bad, message: x}}
                  - {id: never, call: {agent: one, message: x}}
              - {id: say, call: {agent: one, message: "{{ steps.try.error.reason }} {{ steps.group.error.reason }}"}}
            """
        )
        run = await world.done(run)
        assert words(run) == "one heard: AGENT_REFUSED AGENT_REFUSED"
        assert {step.path: step.state for step in run.steps}["group.never"] is RunState.CANCELED


async def test_an_agent_that_cannot_be_reached_is_tried_again_with_the_same_key(
    tmp_path: Path, engine: DbosEngine
) -> None:
    down = RemoteUnavailable("flaky", "it sleeps")
    flaky = ScriptedAgent("flaky").on("work", down, down, answer("awake"))
    async with supervised(tmp_path, flaky, engine=engine) as world:
        run = await world.run(
            workflow="steps: [{id: w, call: {agent: flaky, message: x, retry: {attempts: 3, backoff_s: 0.01}}}]"
        )
        run = await world.done(run)
        assert words(run) == "awake"
        assert run.steps[0].attempts == 3
        assert len({call.idempotency_key for call in flaky.calls}) == 1
        kinds = [event.kind for event in await world.supervisor.events(ALICE, run.id)]
        assert kinds.count(EventKind.STEP_FAILED) == 2
        assert kinds.count(EventKind.STEP_STARTED) == 3


async def test_a_step_that_takes_too_long_fails(tmp_path: Path, engine: DbosEngine) -> None:
    slow = ScriptedAgent("slow").on("hang", Turn(until=anyio.Event()))
    async with supervised(tmp_path, slow, engine=engine) as world:
        run = await world.run(workflow="steps: [{id: w, call: {agent: slow, message: x, timeout_s: 0.05}}]")
        run = await world.done(run)
        assert run.error is not None
        assert run.error.reason == "AGENT_TIMEOUT"
        assert len(slow.canceled) == 1


async def test_progress_and_artifacts_are_told_while_a_step_works(tmp_path: Path, engine: DbosEngine) -> None:
    def piece(text: str) -> Artifact:
        return Artifact(artifact_id="doc", name="report", parts=(TextPart(text=text),))

    go = anyio.Event()
    writer = ScriptedAgent("writer").on(
        "write",
        Turn(
            updates=(
                Progress(text="half", done=1, total=2),
                ArtifactChunk(artifact=piece("one "), last=False),
                ArtifactChunk(artifact=piece("two"), append=True),
            ),
            until=go,
            end=Completed(parts=(), artifacts=(piece("one two"),)),
        ),
    )
    async with supervised(tmp_path, writer, engine=engine) as world:
        run = await world.run(workflow="steps: [{id: w, call: {agent: writer, message: x}}]")
        with anyio.fail_after(10):
            async for event in world.supervisor.watch(ALICE, run.id):
                if event.kind is EventKind.STEP_ARTIFACT and event.n == 1:
                    break
        early = await world.supervisor.get(ALICE, run.id)
        assert early.state is RunState.WORKING
        assert [text_of(artifact.parts) for artifact in early.artifacts] == ["one \ntwo"]
        go.set()
        run = await world.done(run)
        assert [(one.artifact_id, one.name, text_of(one.parts)) for one in run.artifacts] == [
            ("w/doc", "report", "one two")
        ]
        assert words(run) == "one two"


async def test_a_run_is_shown_as_of_one_moment_however_fast_it_goes_on(
    tmp_path: Path, engine: DbosEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, let_go = anyio.Event(), anyio.Event()

    async def play(call: Call, report: Report) -> Outcome:
        await report(ArtifactChunk(artifact=Artifact(artifact_id="x", parts=(TextPart(text="0"),)), last=False))
        await wanted.wait()
        for n in range(1, 4):
            piece = Artifact(artifact_id="x", parts=(TextPart(text=str(n)),))
            await report(ArtifactChunk(artifact=piece, append=True, last=False))
        await let_go.wait()
        return answer("written")

    async with supervised(tmp_path, ScriptedAgent("writer").on("write", play), engine=engine) as world:
        run = await world.run("write", agent="writer")

        async def told(chunks: int) -> int:
            seen = 0
            async for event in world.supervisor.watch(ALICE, run.id):
                seen += event.kind is EventKind.STEP_ARTIFACT
                if seen == chunks:
                    return event.seq
            raise AssertionError("it ended")

        async def goes_on() -> None:
            wanted.set()
            await told(4)
            assert len((await world.supervisor.get(ALICE, run.id)).artifacts[0].parts) == 4  # by another reader

        find_run, rows = records.find_run, list[records.RunRecord]()

        def overtaken(connection: Connection, run_id: str) -> records.RunRecord | None:
            record = find_run(connection, run_id)
            if record is not None and not rows:
                rows.append(record)
                anyio.from_thread.run(goes_on)
            return record

        with anyio.fail_after(20):
            at = await told(1)
            monkeypatch.setattr(records, "find_run", overtaken)
            shown = await world.supervisor.get(ALICE, run.id)
            assert rows[0].generation == at
            events = await world.supervisor.events(ALICE, run.id)
            made = [event.seq for event in events if event.kind is EventKind.STEP_ARTIFACT]
            assert len(shown.artifacts[0].parts) == sum(seq <= shown.generation for seq in made)
            let_go.set()
            await world.done(run)


async def test_a_large_answer_reaches_the_next_step_and_the_caller_whole(tmp_path: Path, engine: DbosEngine) -> None:
    big = "x" * 300_000
    async with supervised(tmp_path, ScriptedAgent("big").on("go", answer(big)), echo("one"), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: a, call: {agent: big, message: x}}
              - {id: b, call: {agent: one, message: "{{ steps.a.text|length }}"}}
            output: "{{ steps.a.text }}{{ steps.b.text }}"
            """
        )
        run = await world.done(run)
        assert words(run) == big + "one heard: 300000"
        events = await world.supervisor.events(ALICE, run.id)
        assert all(len(str(event.payload)) < 10_000 for event in events)


async def test_the_same_idempotency_key_is_the_same_run(tmp_path: Path, engine: DbosEngine) -> None:
    one = echo("one")
    async with supervised(tmp_path, one, engine=engine) as world:
        workflow = "steps: [{id: w, call: {agent: one, message: x}}]"
        ids: set[str] = set()

        async def submit() -> None:
            ids.add((await world.run(workflow=workflow, key="k")).id)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(submit)
        assert len(ids) == 1
        run = await world.done(await world.run(workflow=workflow, key="k"))
        assert len(one.calls) == 1
        assert (await world.run(workflow=workflow, key="other")).id != run.id


async def test_another_persons_run_is_not_found(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), engine=engine) as world:
        run = await world.done(await world.run(workflow="steps: [{id: w, call: {agent: one, message: x}}]"))
        with pytest.raises(RunNotFound):
            await world.supervisor.get(BOB, run.id)
        with pytest.raises(RunNotFound):
            await world.supervisor.cancel(BOB, run.id)
        with pytest.raises(RunNotFound):
            await anext(aiter(world.supervisor.watch(BOB, run.id)))
        assert await world.supervisor.list(BOB) == ()
        with pytest.raises(RunEnded):
            await world.supervisor.cancel(ALICE, run.id)


async def test_runs_are_listed_newest_first_and_by_context(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), engine=engine) as world:
        workflow = "steps: [{id: w, call: {agent: one, message: x}}]"
        runs = [await world.done(await world.run(str(n), workflow=workflow)) for n in range(3)]
        follow_up = await world.done(await world.run("3", workflow=workflow, context=runs[0].context_id))
        listed = await world.supervisor.list(ALICE)
        assert [run.id for run in listed] == [run.id for run in (follow_up, *reversed(runs))]
        page = await world.supervisor.list(ALICE, limit=2, before=listed[1].id)
        assert [run.id for run in page] == [run.id for run in listed[2:]]
        same = await world.supervisor.list(ALICE, context_id=runs[0].context_id)
        assert [run.id for run in same] == [follow_up.id, runs[0].id]
        assert len(await world.supervisor.list(ALICE, state=RunState.FAILED)) == 0


async def test_a_cancelled_run_stops_its_agents_and_ends_once(tmp_path: Path, engine: DbosEngine) -> None:
    documents = ("{kind: team, name: crew, members: [slow], planner: route}",)
    slow = ScriptedAgent("slow").on("hang", Turn(until=anyio.Event()), description="hang around and wait")
    async with supervised(tmp_path, slow, engine=engine, documents=documents) as world:
        run = await world.run(
            workflow="""
            steps:
              - parallel:
                  - {id: direct, call: {agent: slow, message: x}}
                  - {id: team, call: {agent: crew, message: hang around}}
            """
        )
        with anyio.fail_after(10):
            await slow.wait_for_calls(2)
        with anyio.fail_after(2):
            run = await world.supervisor.cancel(ALICE, run.id)
        assert run.state is RunState.CANCELED
        assert sorted(slow.canceled) == [f"{run.id}/direct", f"{run.id}/team.slow"]
        assert {step.state for step in run.steps} == {RunState.CANCELED}
        events = await world.supervisor.events(ALICE, run.id)
        assert events[-1].kind is EventKind.RUN_CANCELED
        assert gapless(events)


async def test_what_is_wrong_is_refused_before_a_run_begins(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), engine=engine) as world:
        with pytest.raises(PlanInvalid, match="did you mean 'one'"):
            await world.run(workflow="steps: [{id: w, call: {agent: onne, message: x}}]")
        with pytest.raises(BadRequest, match="city"):
            await world.run(
                workflow="{inputs: {city: string, size: integer}, steps: [{id: w, call: {agent: one, message: x}}]}"
            )
        with pytest.raises(AgentNotFound):
            await world.run("hi", agent="nobody")
        assert await world.supervisor.list(ALICE) == ()


async def test_a_template_that_fails_while_running_fails_its_step(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: a, call: {agent: one, message: x}}
              - {id: b, call: {agent: one, message: "{{ steps.a.data.nothing.there }}"}}
            """
        )
        run = await world.done(run)
        assert run.error is not None
        assert (run.error.reason, run.error.step) == ("PLAN_INVALID", "b")


async def test_a_watcher_sees_every_event_once_and_then_the_end(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, echo("one"), engine=engine) as world:
        run = await world.run(
            workflow="steps: [{id: a, call: {agent: one, message: x}}, {id: b, call: {agent: one, message: x}}]"
        )
        seen: list[Event] = []
        with anyio.fail_after(10):
            seen.extend([event async for event in world.supervisor.watch(ALICE, run.id)])
        assert gapless(tuple(seen))
        assert seen[-1].kind is EventKind.RUN_COMPLETED
        rest = [event async for event in world.supervisor.watch(ALICE, run.id, seen[-1].seq)]
        assert rest == []


async def test_a_hub_that_stops_leaves_its_runs_to_the_next_which_sends_anew(tmp_path: Path) -> None:
    def fresh() -> DbosEngine:
        return DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")

    first = ScriptedAgent("worker").on("work", Turn(until=anyio.Event()))
    async with supervised(tmp_path, first, echo("one"), engine=fresh()) as world:
        run = await world.run(
            workflow="steps: [{id: a, call: {agent: one, message: x}}, {id: b, call: {agent: worker, message: x}}]"
        )
        with anyio.fail_after(10):
            await first.wait_for_calls(1)
    assert first.canceled == [f"{run.id}/b"]
    second, one = ScriptedAgent("worker").on("work", answer("done")), echo("one")
    async with supervised(tmp_path, second, one, engine=fresh()) as world:
        run = await world.done(run)
        assert words(run) == "done"
        assert one.calls == []
        # The first call was cancelled, so its key may be bound to a canceled task: the second has another.
        assert second.executed == [f"{run.id}/b~1"]
        assert gapless(await world.supervisor.events(ALICE, run.id))


async def test_a_team_is_called_like_any_agent(tmp_path: Path, engine: DbosEngine) -> None:
    documents = (
        "{kind: workflow, name: Twice, inputs: {word: string}, steps: [{id: a, call: {agent: one, "
        "message: '{{ inputs.word }}'}}]}",
    )
    async with supervised(tmp_path, echo("one"), engine=engine, documents=documents) as world:
        outcome = await call_agent(world, "twice", {"word": "hey"})
        assert isinstance(outcome, Completed)
        assert text_of(outcome.parts) == "one heard: hey"


async def call_agent(world: World, agent_id: str, arguments: dict[str, str]) -> Outcome:
    agent = await world.registry.get("default", agent_id)

    async def quiet(update: object) -> None:
        return None

    call = Call(capability="run", arguments=arguments, principal=ALICE, idempotency_key="direct")
    return await world.dispatcher.call(agent, call, quiet)


async def test_a_plan_may_name_an_agent_that_another_replica_has_just_added(
    tmp_path: Path, engine: DbosEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervised(tmp_path, echo("old"), echo("new"), engine=engine) as world:
        [old, _] = sorted(await world.registry.list("default"), key=lambda agent: agent.id != "old")

        async def before_the_notice(tenant: str) -> tuple[Agent, ...]:
            return (old,)

        monkeypatch.setattr(world.registry, "list", before_the_notice)
        run = await world.done(await world.run(workflow="steps: [{id: a, call: {agent: new, message: hello}}]"))
        assert text_of(run.parts) == "new heard: hello"
        with pytest.raises(PlanInvalid, match="no agent is registered as 'newest'"):
            await world.run(workflow="steps: [{id: a, call: {agent: newest, message: hello}}]")
