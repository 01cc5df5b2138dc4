"""What agents ask people: through nested teams, answered once, bound to the exact call."""

from pathlib import Path

import anyio
import pytest

from interhub.adapters import Call, DataPart, InputRequest, InputRequired, Outcome, Principal, Report, TextPart, text_of
from interhub.adapters.testing import ScriptedAgent, Turn, answer, question, refused
from interhub.agent_cards import JsonObject
from interhub.hub.errors import BadRequest, QuestionNotFound
from interhub.hub.policy import Allow, Ask, Decision, Deny
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import Answer, EventKind, Run, RunState
from interhub.registry import Agent
from tests.support.supervised import ALICE, BOB, World, echo, supervised

pytestmark = pytest.mark.anyio

FORM: JsonObject = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}


def say(text: str, *, accepted: bool = True) -> Answer:
    return Answer(parts=(TextPart(text=text),), accepted=accepted, by=ALICE)


def asker(name: str = "asker", *, keeps_tasks: bool = False) -> ScriptedAgent:
    async def play(call: Call, report: Report) -> Outcome:
        if call.resume is None:
            return question("Which colour?", state={"token": 7})
        if not call.resume.accepted:
            raise refused("nobody wants it", by=name)
        return answer(f"{text_of(call.resume.answer)} it is, {call.resume.state}")

    return ScriptedAgent(name, keeps_tasks=keeps_tasks).on("paint", play, description="paint a house in a colour")


async def answered(world: World, run: Run, given: Answer, question_id: str = "") -> Run:
    await world.supervisor.answer(ALICE, run.id, given, question_id)
    return await world.done(run)


async def test_a_question_from_a_nested_team_reaches_the_caller_and_its_answer_the_agent(
    tmp_path: Path, engine: DbosEngine
) -> None:
    documents = (
        "{kind: team, name: inner, members: [asker], planner: route}",
        "{kind: team, name: outer, members: [inner], workflow: {steps: [{id: pass, call: {agent: inner}}]}}",
    )
    agent = asker()
    async with supervised(tmp_path, agent, engine=engine, documents=documents) as world:
        run = await world.done(await world.run("paint the house", agent="outer"))
        assert run.state is RunState.INPUT_REQUIRED
        assert [(one.step, one.agent_id, text_of(one.parts)) for one in run.questions] == [
            ("pass.asker", "asker", "Which colour?")
        ]
        run = await answered(world, run, say("blue"))
        assert run.state is RunState.COMPLETED
        assert text_of(run.parts) == "blue it is, {'token': 7}"
        assert run.questions == ()
        assert [call.idempotency_key for call in agent.calls] == [f"{run.id}/pass.asker", f"{run.id}/pass.asker#1"]
        kinds = [event.kind for event in await world.supervisor.events(ALICE, run.id)]
        assert kinds.count(EventKind.QUESTION_ASKED) == kinds.count(EventKind.QUESTION_ANSWERED) == 1


async def test_the_first_answer_counts_and_the_next_is_told_so(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, asker(), engine=engine) as world:
        run = await world.done(await world.run("paint", agent="asker"))
        asked = run.questions[0].id
        results: list[str] = []

        async def attempt(word: str) -> None:
            try:
                await world.supervisor.answer(ALICE, run.id, say(word), asked)
                results.append("taken")
            except QuestionNotFound as error:
                results.append(str(error))

        async with anyio.create_task_group() as tasks:
            for word in ("red", "green", "blue"):
                tasks.start_soon(attempt, word)
        assert results.count("taken") == 1
        assert sum("already" in result for result in results) == 2
        assert (await world.done(run)).state is RunState.COMPLETED


async def test_a_declined_question_is_the_agents_to_deal_with(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, asker(), engine=engine) as world:
        run = await world.done(await world.run("paint", agent="asker"))
        run = await answered(world, run, say("", accepted=False))
        assert run.error is not None
        assert "nobody wants it" in run.error.message


async def test_an_answer_must_fit_the_form_and_words_fill_its_one_text(tmp_path: Path, engine: DbosEngine) -> None:
    seen: list[object] = []

    async def play(call: Call, report: Report) -> Outcome:
        if call.resume is None:
            return InputRequired(question=(TextPart(text="?"),), schema=FORM)
        seen.extend(part.data for part in call.resume.answer if isinstance(part, DataPart))
        return answer("ok")

    async with supervised(tmp_path, ScriptedAgent("form").on("fill", play), engine=engine) as world:
        run = await world.done(await world.run("fill", agent="form"))
        bad = Answer(parts=(DataPart(data={"colour": 3}),), by=ALICE)
        with pytest.raises(BadRequest, match="not of type 'string'"):
            await world.supervisor.answer(ALICE, run.id, bad)
        await answered(world, run, say("blue"))
        assert seen == [{"colour": "blue"}]


async def test_of_several_requests_each_is_answered_once_and_the_run_goes_on_with_the_last(
    tmp_path: Path, engine: DbosEngine
) -> None:
    seen: list[object] = []

    async def play(call: Call, report: Report) -> Outcome:
        if call.resume is None:
            asked = [("name", None), ("form", FORM)]
            return InputRequired.several(
                [InputRequest(key=key, question=(TextPart(text=f"{key}?"),), schema=schema) for key, schema in asked]
            )
        seen.extend(part.data for part in call.resume.answer if isinstance(part, DataPart))
        return answer("ok")

    async with supervised(tmp_path, ScriptedAgent("two").on("ask", play), engine=engine) as world:
        run = await world.done(await world.run("ask", agent="two"))
        assert [request.key for request in run.questions[0].requests] == ["name", "form"]
        wrong = Answer(parts=(DataPart(data={"colour": 3}),), request="form", by=ALICE)
        with pytest.raises(BadRequest, match="not of type 'string'"):
            await world.supervisor.answer(ALICE, run.id, wrong)
        one = Answer(parts=(TextPart(text="Ann"),), request="name", by=ALICE)
        run = await world.supervisor.answer(ALICE, run.id, one)
        assert run.state is RunState.INPUT_REQUIRED
        assert [request.key for request in run.questions[0].requests] == ["form"]
        with pytest.raises(QuestionNotFound, match="not any more"):
            await world.supervisor.answer(ALICE, run.id, one)
        run = await answered(world, run, Answer(accepted=False, request="form", by=ALICE))
        assert run.state is RunState.COMPLETED
        assert seen == [{"name": "Ann", "form": None}]


async def test_two_open_questions_need_to_be_named(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, asker(), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - parallel:
                  - {id: a, call: {agent: asker, message: x}}
                  - {id: b, call: {agent: asker, message: x}}
            """
        )
        with anyio.fail_after(10):
            while len(run.questions) < 2:
                await world.supervisor.wait_for_news(run.id, run.generation)
                run = await world.supervisor.get(ALICE, run.id)
        with pytest.raises(QuestionNotFound, match="say which"):
            await world.supervisor.answer(ALICE, run.id, say("red"))
        by_step = {one.step: one.id for one in run.questions}
        run = await world.supervisor.answer(ALICE, run.id, say("red"), by_step["b"])
        assert run.state is RunState.INPUT_REQUIRED
        run = await answered(world, run, say("blue"))
        assert text_of(run.parts).splitlines() == ["blue it is, {'token': 7}", "red it is, {'token': 7}"]


async def test_an_agent_may_ask_again(tmp_path: Path, engine: DbosEngine) -> None:
    async def play(call: Call, report: Report) -> Outcome:
        known = call.resume.state if call.resume is not None else 0
        assert isinstance(known, int)
        return question(f"number {known + 1}?", state=known + 1) if known < 3 else answer("enough")

    async with supervised(tmp_path, ScriptedAgent("curious").on("ask", play), engine=engine) as world:
        run = await world.done(await world.run("go", agent="curious"))
        for number in (1, 2, 3):
            assert text_of(run.questions[0].parts) == f"number {number}?"
            run = await answered(world, run, say("yes"), run.questions[0].id)
        assert text_of(run.parts) == "enough"
        assert run.steps[0].attempts == 4


class Careful:
    """Asks before anything is deleted, and lets nobody burn."""

    def decide(self, agent: Agent, call: Call) -> Decision:
        if call.capability == "burn":
            return Deny("fire is forbidden")
        return Ask("it cannot be undone") if call.capability == "delete" else Allow()

    def shuts_out(self, agent: Agent, principal: Principal) -> Deny | None:
        return None


def janitor() -> ScriptedAgent:
    return ScriptedAgent("janitor").on("delete", answer("gone")).on("burn", answer("ash"))


APPROVAL = "steps: [{id: d, call: {agent: janitor, capability: delete, message: 'the {{ goal }}'}}]"


async def test_what_the_policy_wants_asked_is_done_once_approved(tmp_path: Path, engine: DbosEngine) -> None:
    agent = janitor()
    async with supervised(tmp_path, agent, engine=engine, policy=Careful()) as world:
        run = await world.done(await world.run("attic", workflow=APPROVAL))
        assert run.state is RunState.INPUT_REQUIRED
        assert "May janitor do delete" in text_of(run.questions[0].parts)
        assert [part.data for part in run.questions[0].parts if isinstance(part, DataPart)] == [
            {
                "agent": "janitor",
                "capability": "delete",
                "message": [{"text": "the attic"}],
                "asked_by": "default/alice",
                "step": "d",
            }
        ]
        assert agent.calls == []
        run = await answered(world, run, say("yes"))
        assert text_of(run.parts) == "gone"
        assert agent.calls[0].resume is None


async def test_what_is_declined_or_denied_is_never_called(tmp_path: Path, engine: DbosEngine) -> None:
    agent = janitor()
    async with supervised(tmp_path, agent, engine=engine, policy=Careful()) as world:
        run = await world.done(await world.run("attic", workflow=APPROVAL))
        run = await answered(world, run, say("no", accepted=False))
        assert run.error is not None
        assert (run.error.reason, run.error.message) == ("PERMISSION_DENIED", "default/alice declined it")
        burning = "steps: [{id: d, call: {agent: janitor, capability: burn, message: x}}]"
        run = await world.done(await world.run(workflow=burning))
        assert run.error is not None
        assert "fire is forbidden" in run.error.message
        assert agent.calls == []


async def test_open_questions_close_when_the_run_is_cancelled_or_fails(tmp_path: Path, engine: DbosEngine) -> None:
    go = anyio.Event()

    async def fail_later(call: Call, report: Report) -> Outcome:
        await go.wait()
        raise refused("late")

    bad = ScriptedAgent("bad").on("fail", fail_later)
    async with supervised(tmp_path, asker(), bad, engine=engine) as world:
        run = await world.done(await world.run("paint", agent="asker"))
        asked = run.questions[0].id
        run = await world.supervisor.cancel(ALICE, run.id)
        assert run.questions == ()
        with pytest.raises(QuestionNotFound, match="closed"):
            await world.supervisor.answer(ALICE, run.id, say("blue"), asked)
        run = await world.run(
            workflow="steps: [{parallel: [{id: a, call: {agent: asker, message: x}}, "
            "{id: f, call: {agent: bad, message: x}}]}]"
        )
        run = await world.done(run)
        go.set()
        with anyio.fail_after(10):
            kinds = [event.kind async for event in world.supervisor.watch(ALICE, run.id)]
        assert kinds[-1] is EventKind.RUN_FAILED
        assert kinds.count(EventKind.QUESTION_CLOSED) == 1


@pytest.mark.parametrize("ending", ["cancel", "expire", "halt"])
async def test_an_agent_that_waits_for_an_answer_is_told_when_none_will_come(
    tmp_path: Path, engine: DbosEngine, ending: str
) -> None:
    go = anyio.Event()

    async def fail_later(call: Call, report: Report) -> Outcome:
        await go.wait()
        raise refused("late")

    patient = asker(keeps_tasks=True)
    workflow = {
        "cancel": "steps: [{id: a, call: {agent: asker, message: x}}]",
        "expire": "steps: [{id: a, call: {agent: asker, message: x}, timeout_s: 0.5}]",
        "halt": "steps: [{parallel: [{id: a, call: {agent: asker, message: x}}, "
        "{id: f, call: {agent: bad, message: x}}]}]",
    }
    async with supervised(tmp_path, patient, ScriptedAgent("bad").on("fail", fail_later), engine=engine) as world:
        run = await world.done(await world.run(workflow=workflow[ending]))
        assert run.state is RunState.INPUT_REQUIRED
        if ending == "cancel":
            await world.supervisor.cancel(ALICE, run.id)
            assert patient.cancel_requests == ["asker-task-1"]
        go.set()
        with anyio.fail_after(10):
            async for _ in world.supervisor.watch(ALICE, run.id):
                pass
    assert patient.cancel_requests == ["asker-task-1"]


async def test_a_cancelled_run_tells_an_agent_once_and_not_one_that_is_done(tmp_path: Path, engine: DbosEngine) -> None:
    slow = ScriptedAgent("slow", keeps_tasks=True).on("wait", Turn(until=anyio.Event(), end=answer("never")))
    done = ScriptedAgent("done", keeps_tasks=True).on("talk", answer("done"))
    async with supervised(tmp_path, slow, done, engine=engine) as world:
        run = await world.run(
            workflow="steps: [{id: a, call: {agent: done, message: x}}, {id: b, call: {agent: slow, message: x}}]"
        )
        with anyio.fail_after(10):
            await slow.wait_for_calls(1)
        await world.supervisor.cancel(ALICE, run.id)
        assert (slow.canceled, slow.cancel_requests, done.cancel_requests) == ([f"{run.id}/b"], [], [])


async def test_a_question_survives_a_restart(tmp_path: Path) -> None:
    def fresh() -> DbosEngine:
        return DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")

    async with supervised(tmp_path, asker(), engine=fresh()) as world:
        run = await world.done(await world.run("paint", agent="asker"))
        assert run.state is RunState.INPUT_REQUIRED
    agent = asker()
    async with supervised(tmp_path, agent, engine=fresh()) as world:
        run = await answered(world, run, say("blue"))
        assert text_of(run.parts) == "blue it is, {'token': 7}"
        assert [call.idempotency_key for call in agent.calls] == [f"{run.id}/asker#1"]


async def test_somebody_else_cannot_answer(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, asker(), echo("one"), engine=engine) as world:
        run = await world.done(await world.run("paint", agent="asker"))
        with pytest.raises(Exception, match="no run has the id"):
            await world.supervisor.answer(BOB, run.id, say("blue"))
