"""What people do with runs under way or done: pausing, going on, doing them again from a step."""

import asyncio
import time
from pathlib import Path

import anyio
import pytest

from interhub.adapters import Budget, Call, Completed, Outcome, Report, TextPart, Usage, text_of
from interhub.adapters.testing import ScriptedAgent, answer, asked, refused
from interhub.hub.errors import BadRequest, RunEnded, RunNotFound, RunUnderWay
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import Answer, EventKind, Run, RunState
from tests.support.supervised import ALICE, BOB, World, supervised

pytestmark = pytest.mark.anyio


def parrot() -> ScriptedAgent:
    async def play(call: Call, report: Report) -> Outcome:
        return answer(asked(call))

    return ScriptedAgent("parrot").on("say", play, description="say something")


class Held:
    """An agent that begins, says so, and ends when it is let."""

    def __init__(self) -> None:
        self.begun, self.let = anyio.Event(), anyio.Event()
        self.agent = ScriptedAgent("held").on("work", self._play, description="work")

    async def _play(self, call: Call, report: Report) -> Outcome:
        self.begun.set()
        await self.let.wait()
        return answer("worked")


async def until(world: World, run: Run, kind: EventKind, step: str = "") -> None:
    with anyio.fail_after(10):
        async for event in world.supervisor.watch(ALICE, run.id):
            if event.kind is kind and step in ("", event.step):
                return


TWO = """
steps:
  - {id: first, call: {agent: held, message: "go"}}
  - {id: second, call: {agent: parrot, message: "after {{ steps.first }}"}}
"""


async def test_a_paused_run_ends_what_it_is_at_and_begins_nothing_until_it_is_resumed(
    tmp_path: Path, engine: DbosEngine
) -> None:
    held, after = Held(), parrot()
    async with supervised(tmp_path, held.agent, after, engine=engine) as world:
        run = await world.run(workflow=TWO)
        await held.begun.wait()
        paused = await world.supervisor.pause(ALICE, run.id)
        assert (paused.paused, paused.state) == (True, RunState.WORKING)
        assert (await world.supervisor.pause(ALICE, run.id)).paused, "pausing again changes nothing"
        held.let.set()
        await until(world, run, EventKind.STEP_COMPLETED, "first")
        run = await world.supervisor.wait(ALICE, run.id, timeout_s=0.3)
        assert [step.state for step in run.steps] == [RunState.COMPLETED, RunState.SUBMITTED]
        assert after.calls == []
        assert not (await world.supervisor.resume(ALICE, run.id)).paused
        run = await world.done(run)
        assert (text_of(run.parts), run.paused) == ("after worked", False)
        told = [event.kind.value for event in await world.supervisor.events(ALICE, run.id)]
        assert (told.count("run_paused"), told.count("run_resumed")) == (1, 1)
        with pytest.raises(RunEnded):
            await world.supervisor.pause(ALICE, run.id)


async def test_a_run_that_was_paused_is_so_in_the_next_process(tmp_path: Path) -> None:
    def engine() -> DbosEngine:
        return DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")

    held = Held()
    async with supervised(tmp_path, held.agent, parrot(), engine=engine()) as world:
        run = await world.run(workflow=TWO)
        await held.begun.wait()
        await world.supervisor.pause(ALICE, run.id)
    again, after = Held(), parrot()
    again.let.set()
    async with supervised(tmp_path, again.agent, after, engine=engine()) as world:
        await world.supervisor.wait(ALICE, run.id, timeout_s=0.5)
        assert (await world.supervisor.get(ALICE, run.id)).paused
        assert after.calls == []
        await world.supervisor.resume(ALICE, run.id)
        assert text_of((await world.done(run)).parts) == "after worked"


async def test_a_paused_run_can_be_cancelled_and_begins_nothing_by_it(tmp_path: Path, engine: DbosEngine) -> None:
    held, after = Held(), parrot()
    async with supervised(tmp_path, held.agent, after, engine=engine) as world:
        run = await world.run(workflow=TWO)
        await held.begun.wait()
        await world.supervisor.pause(ALICE, run.id)
        held.let.set()
        await until(world, run, EventKind.STEP_COMPLETED, "first")
        with anyio.fail_after(5):
            run = await world.supervisor.cancel(ALICE, run.id)
        assert (run.state, run.paused) == (RunState.CANCELED, False)
        next_run = await world.done(await world.run(workflow="steps: [{id: one, call: {agent: parrot, message: x}}]"))
        assert next_run.state is RunState.COMPLETED
        assert len(after.calls) == 1, "only the other run's"


def parked() -> int:
    """Return how many executions wait for a message."""
    return sum("recv_async" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_run_that_is_cancelled_while_it_waits_is_kept_in_memory_no_longer(tmp_path: Path) -> None:
    def engine() -> DbosEngine:
        return DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")

    asks = "{id: ok, ask: {message: 'go?', approval: true}}"
    plan = f"steps: [{{id: a, plan: {{workflow: {{steps: [{asks}]}}}}}}]"
    async with supervised(tmp_path, parrot(), engine=engine()) as world:
        begun = await world.done(await world.run(workflow=plan))
        left = await world.done(await world.run(workflow=plan))
        assert parked() == 2
        await world.supervisor.cancel(ALICE, begun.id)
        assert parked() == 1
    async with supervised(tmp_path, parrot(), engine=engine()) as world:
        with anyio.fail_after(20):
            while not parked():  # noqa: ASYNC110 -- taken up within seconds
                await anyio.sleep(0.01)
        await world.supervisor.cancel(ALICE, left.id)
        assert parked() == 0
        assert (await world.supervisor.get(ALICE, left.id)).state is RunState.CANCELED


async def test_only_its_owner_may_pause_resume_and_do_a_run_again(tmp_path: Path, engine: DbosEngine) -> None:
    held = Held()
    async with supervised(tmp_path, held.agent, parrot(), engine=engine) as world:
        run = await world.run(workflow=TWO)
        for verb in (world.supervisor.pause, world.supervisor.resume):
            with pytest.raises(RunNotFound):
                await verb(BOB, run.id)
        with pytest.raises(RunNotFound):
            await world.supervisor.rerun(BOB, run.id, "first")
        with pytest.raises(RunUnderWay):
            await world.supervisor.rerun(ALICE, run.id, "first")


async def test_a_run_is_done_again_from_a_step_with_all_that_does_not_come_after_it(
    tmp_path: Path, engine: DbosEngine
) -> None:
    broken = True

    async def fragile(call: Call, report: Report) -> Outcome:
        if broken:
            raise refused("out of order")
        return answer(f"mended with {asked(call)}")

    say, mend = parrot(), ScriptedAgent("mend").on("do", fragile)
    plan = """
    inputs: {names: array}
    steps:
      - id: each
        map: {over: inputs.names, as: name, steps: [{id: one, call: {agent: parrot, message: "{{ name }}!"}}]}
      - {id: ok, ask: {message: "Go on?", approval: true}}
      - id: inner
        remember: {word: "{{ result.text }}"}
        plan: {workflow: {steps: [{id: deep, call: {agent: parrot, message: deep}}]}}
      - id: both
        parallel:
          - {id: mends, call: {agent: mend, message: "{{ steps.each.data | join(',') }} {{ memory.word }}"}}
          - {id: beside, call: {agent: parrot, message: beside}, on_error: continue}
      - {id: last, call: {agent: parrot, message: "{{ steps.mends }} by {{ steps.ok.data.by }}"}}
    """
    async with supervised(tmp_path, say, mend, engine=engine) as world:
        old = await world.run(workflow=plan, inputs={"names": ["a", "b"]})
        await world.done(old)
        await world.supervisor.answer(ALICE, old.id, Answer(by=ALICE, parts=(TextPart(text="yes"),)))
        old = await world.done(old)
        assert old.state is RunState.FAILED
        calls = len(say.calls)
        broken = False
        run = await world.done(await world.supervisor.rerun(ALICE, old.id, "mends"))
        assert text_of(run.parts) == "mended with a!,b! deep by default/alice"
        assert (run.rerun_of, run.rerun_from) == (old.id, "mends")
        assert len(say.calls) - calls <= 2, "only `last`, and `beside` where it was stopped, were done"
        kept = {step.path: step.why for step in run.steps if step.why.startswith("kept from")}
        assert {"each.0.one", "each.1.one", "ok", "inner"} <= kept.keys()
        assert all(old.id in why for why in kept.values())
        assert (await world.supervisor.get(ALICE, old.id)).state is RunState.FAILED
        # And that one again, from a step after which nothing comes.
        calls = len(say.calls) + len(mend.calls)
        third = await world.done(await world.supervisor.rerun(ALICE, run.id, "last"))
        assert text_of(third.parts) == text_of(run.parts)
        assert len(say.calls) + len(mend.calls) == calls + 1


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_step_that_is_kept_is_not_paid_again(tmp_path: Path, engine: DbosEngine, size: int) -> None:
    async def work(call: Call, report: Report) -> Outcome:
        return Completed(parts=(TextPart(text="x" * size),), usage=Usage(input_tokens=7))

    plan = """
    budget: {tokens: 7}
    steps:
      - {id: first, call: {agent: worker, message: a}}
      - {id: second, call: {agent: parrot, message: b}}
      - {id: third, call: {agent: worker, message: c}}
    """
    async with supervised(tmp_path, ScriptedAgent("worker").on("work", work), parrot(), engine=engine) as world:
        old = await world.done(await world.run(workflow=plan))
        assert old.state is RunState.FAILED
        run = await world.done(await world.supervisor.rerun(ALICE, old.id, "second"))
        used = {step.path: step.usage for step in run.steps}
        assert (run.error, used) == (None, {"first": None, "second": None, "third": Usage(input_tokens=7)})


@pytest.mark.parametrize(
    ("step", "hint"), [("secnd", "did you mean 'second'"), ("each.0.one", "it is within each: name that")]
)
async def test_a_step_that_is_not_the_plans_own_is_refused_with_a_hint(
    tmp_path: Path, engine: DbosEngine, step: str, hint: str
) -> None:
    plan = """
    steps:
      - {id: each, map: {over: "{{ ['a'] }}", steps: [{id: one, call: {agent: parrot, message: "{{ item }}"}}]}}
      - {id: second, call: {agent: parrot, message: b}}
    """
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.done(await world.run(workflow=plan))
        with pytest.raises(BadRequest, match=hint):
            await world.supervisor.rerun(ALICE, run.id, step)


async def test_a_run_done_again_has_its_time_anew(tmp_path: Path, engine: DbosEngine) -> None:
    held = Held()
    async with supervised(tmp_path, held.agent, parrot(), engine=engine) as world:
        old = await world.done(await world.run(workflow=TWO, budget=Budget(until=time.time() + 0.4)))
        assert old.error is not None
        assert old.error.reason == "BUDGET_EXCEEDED"
        held.let.set()
        run = await world.done(await world.supervisor.rerun(ALICE, old.id, "first"))
        assert (run.error, text_of(run.parts)) == (None, "after worked")
