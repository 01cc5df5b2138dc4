"""Asking, waiting, and what holds for every step: fallbacks, time, budgets, schemas, memory and undoing."""

import time
from pathlib import Path

import anyio
import pytest

from interhub.adapters import (
    Budget,
    Call,
    Completed,
    DataPart,
    Outcome,
    RemoteUnavailable,
    Report,
    TextPart,
    Usage,
    text_of,
)
from interhub.adapters.testing import ScriptedAgent, answer, asked, refused
from interhub.agent_cards import Json
from interhub.hub.errors import QuestionNotFound
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.engine_memory import MemoryEngine
from interhub.hub.supervisor.run import Answer, EventKind, Run, RunState
from interhub.hub.supervisor.waits import Signal
from tests.support.supervised import ALICE, World, supervised

pytestmark = pytest.mark.anyio


def words(run: Run) -> str:
    return text_of(run.parts)


def parrot(name: str = "parrot") -> ScriptedAgent:
    """An agent that says exactly what it is told; it refuses what begins with `bad`, and hangs on `hang`."""

    async def play(call: Call, report: Report) -> Outcome:
        said = asked(call)
        if said.startswith("bad"):
            raise refused(said)
        if said == "hang":
            await anyio.sleep_forever()
        return Completed(parts=(TextPart(text=said),), usage=Usage(input_tokens=7, output_tokens=3, cost_usd=0.5))

    return ScriptedAgent(name).on("say", play, description=f"say something as a {name} does")


async def told(world: World, run: Run, kind: EventKind) -> list[str]:
    return [event.step for event in await world.supervisor.events(ALICE, run.id) if event.kind is kind]


async def until(world: World, run: Run, kind: EventKind) -> None:
    """Return when a run has told an event of that kind."""
    with anyio.fail_after(20):
        async for event in world.supervisor.watch(ALICE, run.id):
            if event.kind is kind:
                return


def said(agent: ScriptedAgent) -> list[str]:
    return [asked(call) for call in agent.calls]


# Asking


async def test_a_step_asks_a_person_and_its_answer_is_what_it_gives(tmp_path: Path, engine: DbosEngine) -> None:
    plan = """
    name: painting
    steps:
      - {id: colour, ask: {message: "Which colour for {{ goal }}?",
           answer: {type: object, properties: {c: {type: string}}, required: [c]}}}
      - {id: ok, ask: {message: "{{ steps.colour.data.c }}, really?", approval: true, on_decline: continue}}
    output: {colour: "{{ steps.colour.data.c }}", ok: "{{ steps.ok.data.accepted }}"}
    """
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.done(await world.run("the door", workflow=plan))
        (asks,) = run.questions
        assert (run.state, asks.agent_id, asks.step) == (RunState.INPUT_REQUIRED, "painting", "colour")
        assert text_of(asks.parts) == "Which colour for the door?"
        await world.supervisor.answer(ALICE, run.id, Answer(parts=(DataPart(data={"c": "red"}),), by=ALICE))
        run = await world.done(run)
        assert text_of(run.questions[0].parts) == "red, really?"
        await world.supervisor.answer(ALICE, run.id, Answer(accepted=False, by=ALICE))
        run = await world.done(run)
        assert run.structured == {"colour": "red", "ok": False}


async def test_a_declined_approval_fails_the_plan_and_one_that_nobody_gives_too(
    tmp_path: Path, engine: DbosEngine
) -> None:
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.done(await world.run(workflow="steps: [{id: ok, ask: {message: 'May I?', approval: true}}]"))
        await world.supervisor.answer(ALICE, run.id, Answer(accepted=False, by=ALICE))
        run = await world.done(run)
        assert run.error is not None
        assert (run.error.reason, run.error.message) == ("PERMISSION_DENIED", "default/alice declined it")
        run = await world.run(workflow="steps: [{id: ok, timeout_s: 0.05, ask: {message: 'May I?'}}]")
        await until(world, run, EventKind.RUN_FAILED)
        run = await world.done(run)
        assert run.error is not None
        assert run.error.message == "nobody answered in time"
        assert run.questions == ()


# Waiting


async def test_a_step_waits_for_the_event_that_fits_and_gets_it_once(tmp_path: Path, engine: DbosEngine) -> None:
    plan = """
    inputs: {order: integer}
    steps:
      - {id: paid, wait: {event: order_paid, match: {order.id: "{{ inputs.order }}"}}}
      - {id: after, call: {agent: parrot, message: "{{ steps.paid.data.amount }} for {{ steps.paid.data.order.id }}"}}
    """
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        runs = [await world.run(workflow=plan, inputs={"order": order}) for order in (1, 2)]
        for run in runs:
            await until(world, run, EventKind.STEP_WAITING)
        deliver = world.supervisor.deliver
        assert await deliver(Signal(tenant="default", name="order_paid", data={"order": {"id": 3}})) == ()
        assert await deliver(Signal(tenant="other", name="order_paid", data={"order": {"id": 2}})) == ()
        signal = Signal(tenant="default", name="order_paid", data={"order": {"id": 2}, "amount": 50})
        assert await deliver(signal) == (runs[1].id,)
        assert await deliver(signal) == ()
        run = await world.done(runs[1])
        assert words(run) == "50 for 2"
        waits = (await world.supervisor.get(ALICE, runs[0].id)).steps[0]
        assert (waits.state, waits.why.partition(",")[0]) == (RunState.WORKING, "waits for the event order_paid")
        await world.supervisor.cancel(ALICE, runs[0].id)


async def test_a_step_waits_for_a_time_and_an_event_that_does_not_come_fails_it(
    tmp_path: Path, engine: DbosEngine
) -> None:
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: pause, wait: {seconds: "{{ 0.01 * 2 }}"}}
              - {id: past, wait: {until: "2020-01-01T00:00:00Z"}}
              - {id: never, timeout_s: 0.05, on_error: continue, wait: {event: nothing}}
              - {id: wrong, on_error: continue, wait: {until: "{{ 'tomorrow' }}"}}
            output: ["{{ steps.never.error.reason }}", "{{ steps.wrong.error.message }}"]
            """
        )
        run = await world.done(run)
        assert isinstance(run.structured, list)
        assert run.structured[0] == "STEP_TIMEOUT"
        assert "'tomorrow' is no time" in str(run.structured[1])


# Teams and workflows by name


async def test_what_a_stopped_plan_within_the_plan_asks_and_waits_for_is_closed(
    tmp_path: Path, engine: DbosEngine
) -> None:
    plan = """
    steps:
      - id: a
        timeout_s: 1
        on_error: continue
        plan:
          workflow:
            steps:
              - parallel:
                  - {id: ok, ask: {message: "go?", approval: true}}
                  - {id: paid, wait: {event: order_paid}}
                id: both
      - {id: b, call: {agent: parrot, message: hang}}
    """
    agent = parrot()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.done(await world.run(workflow=plan))
        (asks,) = run.questions
        with anyio.fail_after(20):
            await agent.wait_for_calls(1)
        await until(world, run, EventKind.QUESTION_CLOSED)
        run = await world.supervisor.get(ALICE, run.id)
        assert (run.state, run.questions) == (RunState.WORKING, ())
        assert await world.supervisor.approvals(ALICE) == ()
        assert await told(world, run, EventKind.QUESTION_CLOSED) == ["a.both.ok"]
        states = {step.path: step.state for step in run.steps}
        assert (states["a"], states["a.both.ok"]) == (RunState.FAILED, RunState.CANCELED)
        with pytest.raises(QuestionNotFound):
            await world.supervisor.answer(ALICE, run.id, Answer(by=ALICE), asks.id)
        assert await world.supervisor.deliver(Signal(tenant="default", name="order_paid")) == ()
        await world.supervisor.cancel(ALICE, run.id)


async def test_a_cancelled_run_waits_for_no_event(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.run(workflow="steps: [{id: paid, wait: {event: order_paid}}]")
        await until(world, run, EventKind.STEP_WAITING)
        await world.supervisor.cancel(ALICE, run.id)
        assert await world.supervisor.deliver(Signal(tenant="default", name="order_paid")) == ()


async def test_an_event_that_one_run_cannot_be_told_of_reaches_the_others_and_that_one_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, signal = MemoryEngine(), Signal(tenant="default", name="order_paid")
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        runs = [await world.run(workflow="steps: [{id: paid, wait: {event: order_paid}}]") for _ in range(2)]
        for run in runs:
            await until(world, run, EventKind.STEP_WAITING)

        async def send(run_id: str, topic: str, message: Json, key: str) -> None:
            if run_id == runs[0].id:
                raise ConnectionError("the engine is away")
            await MemoryEngine.send(engine, run_id, topic, message, key)

        with monkeypatch.context() as broken:
            broken.setattr(engine, "send", send)
            with pytest.raises(ConnectionError):
                await world.supervisor.deliver(signal)
        assert (await world.done(runs[1])).state is RunState.COMPLETED
        assert await world.supervisor.deliver(Signal(tenant="default", name="order_paid")) == ()
        assert await world.supervisor.deliver(signal) == (runs[0].id,)
        assert (await world.done(runs[0])).state is RunState.COMPLETED


async def test_teams_and_workflows_are_called_by_name_or_made_up_in_the_plan(
    tmp_path: Path, engine: DbosEngine
) -> None:
    documents = (
        "{kind: team, name: crew, members: [parrot], planner: route}",
        "{kind: workflow, name: shout, inputs: {what: string}, "
        "steps: [{id: one, call: {agent: parrot, message: '{{ inputs.what }}!'}}]}",
    )
    async with supervised(tmp_path, parrot(), parrot("owl"), engine=engine, documents=documents) as world:
        run = await world.run(
            "hello",
            workflow="""
            steps:
              - {id: a, team: {name: crew, message: "for {{ goal }}"}}
              - {id: b, plan: {name: shout, inputs: {what: "{{ steps.a.text }}"}}}
              - {id: c, team: {members: [owl], message: "{{ steps.b.text }}"}}
              - id: d
                team:
                  members: [owl]
                  inputs: {x: "{{ steps.c.text }}"}
                  workflow: {inputs: {x: string}, steps: [{id: e, call: {agent: owl, message: "<{{ inputs.x }}>"}}]}
            """,
        )
        run = await world.done(run)
        assert words(run) == "<for hello!>"
        assert [(step.path, step.agent_id) for step in run.steps] == [
            ("a", "crew"),
            ("a.parrot", "parrot"),
            ("b", "shout"),
            ("b.one", "parrot"),
            ("c", ""),
            ("c.owl", "owl"),
            ("d", ""),
            ("d.e", "owl"),
        ]


async def test_a_capability_alone_finds_whoever_has_it(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, parrot(), ScriptedAgent("w").on("rain", answer("wet")), engine=engine) as world:
        run = await world.done(await world.run(workflow="steps: [{id: a, call: {capability: rain, message: x}}]"))
        assert words(run) == "wet"
        assert run.steps[0].why == "it has rain"


# When it goes wrong


async def test_other_agents_are_turned_to_in_order_under_keys_of_their_own(tmp_path: Path, engine: DbosEngine) -> None:
    first, second, third = (ScriptedAgent(name).on("do", refused("no")) for name in ("first", "second", "unused"))
    last = parrot("last")
    async with supervised(tmp_path, first, second, third, last, engine=engine) as world:
        run = await world.run(
            workflow="""
            steps: [{id: a, call: {agent: first, message: x,
                 fallback: [{agent: second}, {agent: last}, {agent: unused}]}}]
            """
        )
        run = await world.done(run)
        assert (words(run), run.steps[0].agent_id, run.steps[0].attempts) == ("x", "last", 3)
        assert run.steps[0].why.startswith("in the place of second, which failed")
        keys = [agent.calls[0].idempotency_key.partition("/")[2] for agent in (first, second, last)]
        assert keys == ["a", "a#1", "a#2"]
        assert third.calls == []


async def test_an_answer_that_does_not_fit_is_tried_again_and_its_data_is_read_from_its_text(
    tmp_path: Path, engine: DbosEngine
) -> None:
    answers = ["no data", '{"n": "x"}', '```json\n{"n": 3}\n```']

    async def play(call: Call, report: Report) -> Outcome:
        return answer(answers[len(model.calls) - 1])

    model = ScriptedAgent("model").on("guess", play)
    schema = "{type: object, properties: {n: {type: integer}}, required: [n]}"
    async with supervised(tmp_path, model, engine=engine) as world:
        run = await world.run(
            workflow=f"""
            steps:
              - id: a
                output_schema: {schema}
                call: {{agent: model, message: x, retry: {{attempts: 3, backoff_s: 0, after: [invalid]}}}}
            output_schema: {schema}
            output: "{{{{ steps.a.data }}}}"
            """
        )
        run = await world.done(run)
        assert run.structured == {"n": 3}
        keys = [call.idempotency_key.partition("/")[2] for call in model.calls]
        assert keys == ["a", "a~1", "a~2"]
        model.calls.clear()
        run = await world.done(
            await world.run(workflow=f"steps: [{{id: a, output_schema: {schema}, call: {{agent: model, message: x}}}}]")
        )
        assert run.error is not None
        assert run.error.reason == "OUTPUT_INVALID"


async def test_a_step_that_lasts_too_long_is_stopped_with_all_that_is_in_it(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: call, timeout_s: 0.1, on_error: continue, call: {agent: parrot, message: hang}}
              - id: each
                timeout_s: 0.1
                on_error: continue
                map: {over: "{{ [1, 2] }}", steps: [{id: one, call: {agent: parrot, message: hang}}]}
            output: ["{{ steps.call.error.reason }}", "{{ steps.each.error.message }}"]
            """
        )
        run = await world.done(run)
        assert run.structured == ["STEP_TIMEOUT", "it was not done within 0.1 s"]
        assert await told(world, run, EventKind.STEP_CANCELED) == ["each.0.one", "each.1.one"]


async def test_a_step_whose_time_is_up_while_it_is_tried_again_has_failed(tmp_path: Path, engine: DbosEngine) -> None:
    away = ScriptedAgent("away").on("work", RemoteUnavailable("away", "it sleeps"))
    async with supervised(tmp_path, parrot(), away, engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - id: try
                timeout_s: 0.5
                on_error: continue
                call: {agent: away, message: x, retry: {attempts: 5, backoff_s: 60}}
              - {id: then, call: {agent: parrot, message: "{{ steps.try.error.reason }}"}}
            """
        )
        run = await world.done(run)
        assert words(run) == "STEP_TIMEOUT"
        assert (run.steps[0].state, run.steps[0].error) == (RunState.FAILED, "it was not done within 0.5 s")
        assert await told(world, run, EventKind.STEP_FAILED) == ["try", "try"]


@pytest.mark.parametrize(
    ("budget", "calls", "what"),
    [("{calls: 2}", 2, "calls"), ("{tokens: 15}", 2, "tokens"), ("{cost_usd: 0.4}", 1, "US dollars")],
)
async def test_a_plan_uses_no_more_than_its_budget(
    tmp_path: Path, engine: DbosEngine, budget: str, calls: int, what: str
) -> None:
    agent = parrot()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.run(
            workflow=f"""
            budget: {budget}
            steps:
              - {{id: a, call: {{agent: parrot, message: x}}}}
              - {{id: b, plan: {{workflow: {{steps: [{{id: c, call: {{agent: parrot, message: x}}}}]}}}}}}
              - {{id: d, call: {{agent: parrot, message: x}}}}
            """
        )
        run = await world.done(run)
        assert run.error is not None
        assert run.error.reason == "BUDGET_EXCEEDED"
        assert what in run.error.message
        assert len(agent.calls) == calls


class Endless:
    """An agent that never ends, and notes when it is stopped."""

    def __init__(self) -> None:
        self.stopped = 0
        self.agent = ScriptedAgent("endless").on("work", self._play, description="work on and on")

    async def _play(self, call: Call, report: Report) -> Outcome:
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped += 1
        raise AssertionError("it does not end")


LONG = "steps: [{parallel: [{id: a, call: {agent: endless, message: x}}, {id: b, call: {agent: endless, message: x}}]}]"


@pytest.mark.parametrize("whose", ["the plan's", "the tree's", "the tree's, in a plan in the plan"])
async def test_what_lasts_too_long_fails_and_its_calls_are_stopped(
    whose: str, tmp_path: Path, engine: DbosEngine
) -> None:
    endless = Endless()
    async with supervised(tmp_path, endless.agent, engine=engine) as world:
        if whose == "the plan's":
            run = await world.run(workflow=f"{{budget: {{wall_s: 0.3}}, {LONG}}}")
        else:
            workflow = f"{{{LONG}}}" if "in" not in whose else f"{{steps: [{{id: p, plan: {{workflow: {{{LONG}}}}}}}]}}"
            run = await world.run(workflow=workflow, budget=Budget(until=time.time() + 0.3))
        run = await world.done(run)
        assert run.error is not None
        assert run.error.reason == "BUDGET_EXCEEDED"
        assert "0.3 seconds" in run.error.message
        assert (len(endless.agent.calls), endless.stopped) == (2, 2)


async def test_a_run_that_has_lasted_too_long_has_done_so_in_every_replay(tmp_path: Path) -> None:
    first, again = Endless(), Endless()
    before = MemoryEngine()
    async with supervised(tmp_path, first.agent, engine=before) as world:
        run = await world.run(workflow=f"{{{LONG}}}", budget=Budget(until=time.time() + 0.3), key="once")
        run = await world.done(run)
    # All is recorded but what came last: the run is executed anew when the time is long over.
    (tmp_path / "again").mkdir()
    after = MemoryEngine(before.cut(len(before.order)))
    async with supervised(tmp_path / "again", again.agent, engine=after) as world:
        replayed = await world.run(workflow=f"{{{LONG}}}", budget=Budget(until=time.time() + 60), key="once")
        replayed = await world.done(replayed)
    assert replayed.id == run.id
    assert (replayed.state, replayed.error) == (run.state, run.error)
    assert len(first.agent.calls) == 2


# Memory


async def test_steps_share_a_memory_with_plans_within_the_plan_but_not_with_other_agents(
    tmp_path: Path, engine: DbosEngine
) -> None:
    inner = '{steps: [{id: in, remember: {b: "{{ memory.a }}2"}, call: {agent: parrot, message: x}}]}'
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.run(
            workflow=f"""
            steps:
              - {{id: one, remember: {{a: "{{{{ result.text }}}}1"}}, call: {{agent: parrot, message: x}}}}
              - {{id: sub, plan: {{workflow: {inner}}}}}
            output: "{{{{ memory }}}}"
            """
        )
        run = await world.done(run)
        assert run.structured == {"a": "x1", "b": "x12"}
        assert await told(world, run, EventKind.MEMORY_WRITTEN) == ["one", "sub.in"]


# Undoing


async def test_what_was_done_is_undone_in_reverse_and_then_the_plan_says_so(tmp_path: Path, engine: DbosEngine) -> None:
    agent = parrot()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: a, call: {agent: parrot, message: book a},
                   undo: [{id: ua, call: {agent: parrot, message: "cancel {{ steps.a.text }}"}}]}
              - id: each
                map:
                  over: "{{ [1, 2] }}"
                  concurrency: 1
                  steps:
                    - {id: i, call: {agent: parrot, message: "do {{ item }}"},
                         undo: [{id: ui, call: {agent: parrot, message: "undo {{ item }}"}}]}
              - {id: b, call: {agent: parrot, message: x}, undo: [{id: ub, call: {agent: parrot, message: bad undo}}]}
              - {id: c, call: {agent: parrot, message: bad}, undo: [{id: uc, call: {agent: parrot, message: never}}]}
            on_failure:
              - {id: tell, call: {agent: parrot, message: "sorry: {{ error.step }}"}}
            """
        )
        run = await world.done(run)
        assert run.error is not None
        assert (run.error.reason, run.error.step) == ("AGENT_REFUSED", "c")
        assert "b was not undone" in run.error.message
        assert said(agent)[5:] == ["bad undo", "undo 2", "undo 1", "cancel book a", "sorry: c"]
        assert [step.path for step in run.steps if "undo" in step.path] == [
            "a.undo.ua",
            "each.0.i.undo.ui",
            "each.1.i.undo.ui",
            "b.undo.ub",
        ]


async def test_a_failure_that_stays_within_a_group_undoes_only_the_group(tmp_path: Path, engine: DbosEngine) -> None:
    agent = parrot()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: a, call: {agent: parrot, message: a}, undo: [{id: ua, call: {agent: parrot, message: undo a}}]}
              - on_error: continue
                sequence:
                  - {id: b, call: {agent: parrot, message: b}, undo: [{id: ub, call: {agent: parrot, message: undo b}}]}
                  - {id: c, call: {agent: parrot, message: bad}}
              - {id: d, call: {agent: parrot, message: d}}
            """
        )
        run = await world.done(run)
        assert (run.state, words(run)) == (RunState.COMPLETED, "d")
        assert said(agent) == ["a", "b", "bad", "undo b", "d"]


# After a restart


async def test_maps_loops_waits_and_questions_go_on_in_the_next_process_without_doing_anything_again(
    tmp_path: Path,
) -> None:
    plan = """
    steps:
      - id: side
        parallel:
          - {id: each, map: {over: "{{ [1, 2] }}", steps: [{id: i, call: {agent: parrot, message: "i{{ item }}"}}]}}
          - {id: paid, wait: {event: paid}}
          - {id: turns, loop: {at_most: 2, pause_s: 0.3,
               steps: [{id: t, call: {agent: parrot, message: "t{{ turn }}"}}]}}
          - {id: ok, remember: {ok: "{{ result.data.accepted }}"}, ask: {message: "Well?", approval: true}}
    output: ["{{ steps.each.data }}", "{{ steps.paid.data.n }}", "{{ steps.turns.text }}", "{{ memory.ok }}"]
    """
    url = f"sqlite:///{tmp_path / 'engine.db'}"
    agent = parrot()
    async with supervised(tmp_path, agent, engine=DbosEngine(url)) as world:
        run = await world.done(await world.run(workflow=plan, key="k"))
        assert run.state is RunState.INPUT_REQUIRED
        await until_done(world, run, {"side.each.1.i", "side.turns.1.t"})
    done = said(agent)
    async with supervised(tmp_path, agent, engine=DbosEngine(url)) as world:
        assert await world.supervisor.deliver(Signal(tenant="default", name="paid", data={"n": 7})) == (run.id,)
        await world.supervisor.answer(ALICE, run.id, Answer(by=ALICE))
        run = await world.done(run)
        assert run.structured == [["i1", "i2"], 7, "t2", True]
    assert sorted(said(agent)) == ["i1", "i2", "t1", "t2"]
    assert len(done) >= 3


async def until_done(world: World, run: Run, steps: set[str]) -> None:
    """Return when these steps have completed."""
    with anyio.fail_after(20):
        async for event in world.supervisor.watch(ALICE, run.id):
            if event.kind is EventKind.STEP_COMPLETED:
                steps.discard(event.step)
            if not steps:
                return
