"""Any plan compiles to leaves in a right order, and its run, cut off anywhere, goes on as if nothing had happened."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interhub.adapters import Call, Outcome, Report, TextPart, text_of
from interhub.adapters.testing import ScriptedAgent, answer, asked, question, refused
from interhub.hub.errors import QuestionNotFound
from interhub.hub.supervisor.engine_memory import MemoryEngine, NotDeterministic, Record
from interhub.hub.supervisor.graph import compile_steps
from interhub.hub.supervisor.model import ParallelStep, Plan, SequenceStep, walk
from interhub.hub.supervisor.plan_check import check_plan
from interhub.hub.supervisor.run import Answer, Event, EventKind, Run, RunState
from interhub.registry.database import open_database
from tests.support.supervised import ALICE, supervised

Shaped = dict[str, Any]

TEAM = (
    "{kind: team, name: crew, members: [worker], workflow: {steps: [{id: one, call: {agent: worker, message: x}}, "
    "{id: two, call: {agent: worker, message: '{{ steps.one.text }}'}}]}}"
)


def call_of(agent: str, rule: Shaped) -> Shaped:
    return {"call": {"agent": agent, "message": "x"}, **rule}


def group_of(kind: str, inner: list[Shaped], rule: Shaped) -> Shaped:
    return {kind: inner, **rule}


def plan_of(inner: list[Shaped], rule: Shaped) -> Shaped:
    return {"plan": {"workflow": {"steps": inner}}, **rule}


def calls() -> st.SearchStrategy[Shaped]:
    return st.builds(
        call_of, st.sampled_from(["worker", "worker", "worker", "breaker", "asker", "crew"]), error_rules()
    )


WORK = {"agent": "worker", "message": "x"}


def words_of(kind: str) -> Shaped:
    words: dict[str, Shaped] = {
        "ask": {"ask": {"message": "x"}},
        "approval": {"ask": {"message": "x", "approval": True, "on_decline": "continue"}},
        "pause": {"wait": {"seconds": 0}},
        "never": {"wait": {"event": "nothing"}, "timeout_s": 0.001},
        "crew": {"team": {"name": "crew", "message": "x"}},
        "made_up": {"team": {"members": ["worker"], "message": "x"}},
        "fallback": {"call": {"agent": "breaker", "message": "x", "fallback": [{"agent": "worker"}]}},
        "remember": {
            "call": {"agent": "worker", "message": "x"},
            "remember": {"seen": "{{ memory.seen | default(0) + 1 }}"},
        },
        "undo": {
            "call": {"agent": "worker", "message": "x"},
            "undo": [{"call": {"agent": "worker", "message": "undo"}}],
        },
        "schema": {"call": {"agent": "worker", "message": "x"}, "output_schema": {"type": "integer"}},
        "retry": {
            "call": {"agent": "breaker", "message": "x", "retry": {"attempts": 2, "backoff_s": 0, "after": ["refused"]}}
        },
        "need": {"call": {"need": "work", "message": "x"}},
        "in_time": {"call": {"agent": "asker", "message": "x"}, "timeout_s": 60},
        "no_budget": {"plan": {"workflow": {"steps": [{"id": "a", **WORKS}]}}, "budget": {"calls": 0}},
        "rescued": {"plan": {"workflow": {"steps": [{"id": "a", **BREAKS}], "on_failure": [{"id": "b", **WORKS}]}}},
    }
    return words[kind]


OTHERS = (
    *("ask", "approval", "pause", "never", "crew", "made_up", "fallback", "remember", "undo", "schema", "retry"),
    *("need", "in_time", "no_budget", "rescued"),
)
WORKS: Shaped = {"call": {"agent": "worker", "message": "x"}}
BREAKS: Shaped = {"call": {"agent": "breaker", "message": "x"}}


def other_steps() -> st.SearchStrategy[Shaped]:
    def other(kind: str, rule: Shaped, needs: bool) -> Shaped:
        return {**words_of(kind), **rule, **({"needs": True} if needs else {})}

    return st.builds(other, st.sampled_from(OTHERS), error_rules(), st.booleans())


def map_of(inner: list[Shaped], items: int, concurrency: int, rule: Shaped, item_rule: str) -> Shaped:
    spec = {"over": str([*range(items)]), "concurrency": concurrency, "on_item_error": item_rule, "steps": inner}
    return {"map": spec, **rule}


def loop_of(inner: list[Shaped], turns: int, done: int, rule: Shaped) -> Shaped:
    return {"loop": {"at_most": turns, "until": f"turn >= {done}", "on_limit": "accept", "steps": inner}, **rule}


def choice_of(first: list[Shaped], other: list[Shaped], taken: bool, rule: Shaped) -> Shaped:
    return {"choose": [{"when": str(taken), "steps": first}], "else": other, **rule}


def blocks(steps: st.SearchStrategy[Shaped]) -> st.SearchStrategy[Shaped]:
    lists = st.lists(steps, min_size=1, max_size=3)
    few = st.integers(0, 3)
    maps = st.builds(map_of, lists, few, st.integers(1, 3), error_rules(), st.sampled_from(["fail", "continue"]))
    loops = st.builds(loop_of, lists, st.integers(1, 2), st.integers(1, 3), error_rules())
    choices = st.builds(choice_of, lists, lists, st.booleans(), error_rules())
    return groups(steps) | maps | loops | choices


def error_rules() -> st.SearchStrategy[Shaped]:
    empty: Shaped = {}
    return st.sampled_from([empty, empty, {"on_error": "continue"}])


def groups(steps: st.SearchStrategy[Shaped]) -> st.SearchStrategy[Shaped]:
    lists = st.lists(steps, min_size=1, max_size=4)
    group = st.builds(group_of, st.sampled_from(["sequence", "parallel"]), lists, error_rules())
    return group | st.builds(plan_of, lists, error_rules())


def numbered(steps: list[Shaped], count: list[int]) -> list[Shaped]:
    """Give each step an id, unique in the whole tree; one that has `needs` needs the one before it."""
    named: list[Shaped] = []
    for step in steps:
        count[0] += 1
        copy: Shaped = {"id": f"s{count[0]}", **step}
        if copy.pop("needs", False) and named:
            copy["needs"] = [named[-1]["id"]]
        for kind in ("sequence", "parallel"):
            if kind in copy:
                copy[kind] = numbered(copy[kind], count)
        for kind in ("map", "loop"):
            if kind in copy:
                copy[kind] = {**copy[kind], "steps": numbered(copy[kind]["steps"], count)}
        if "choose" in copy:
            copy["choose"] = [{**one, "steps": numbered(one["steps"], count)} for one in copy["choose"]]
            copy["else"] = numbered(copy["else"], count)
        if "undo" in copy:
            copy["undo"] = numbered(copy["undo"], count)
        if "plan" in copy:
            copy["plan"] = {"workflow": {"steps": numbered(copy["plan"]["workflow"]["steps"], count)}}
        named.append(copy)
    return named


def rich_plans() -> st.SearchStrategy[Shaped]:
    """Plans of every kind of step."""

    def plan(given: list[Shaped], rescue: list[Shaped]) -> Shaped:
        count = [0]
        steps = numbered(given, count)
        return {"steps": steps, **({"on_failure": numbered(rescue, count)} if rescue else {})}

    steps = st.lists(st.recursive(calls() | other_steps(), blocks, max_leaves=6), min_size=1, max_size=3)
    return st.builds(plan, steps, st.lists(calls(), max_size=1))


def plans(max_leaves: int = 10) -> st.SearchStrategy[Shaped]:
    steps = st.lists(st.recursive(calls(), groups, max_leaves=max_leaves), min_size=1, max_size=3)
    return steps.map(lambda given: {"steps": numbered(given, [0])})


@given(plans(20))
@settings(max_examples=200, deadline=None)
def test_a_compiled_plan_keeps_the_order_of_sequences_and_leaves_parallel_steps_apart(shaped: Shaped) -> None:
    plan = Plan.model_validate(shaped)
    graph = compile_steps(plan.steps)
    leaves = [
        step for step in walk(plan.steps) if step.id and not hasattr(step, "sequence") and not hasattr(step, "parallel")
    ]
    assert sorted(node.step.id for node in graph.nodes) == sorted(step.id for step in leaves)
    place = {node.path: number for number, node in enumerate(graph.nodes)}
    assert all(place[path] < place[node.path] for node in graph.nodes for path in node.after)
    for first, second in zip(plan.steps, plan.steps[1:], strict=False):
        for path in graph.members[second.id]:
            assert graph.before(path).issuperset(graph.members[first.id])
    for step in walk(plan.steps):
        if isinstance(step, SequenceStep):
            for first, second in zip(step.sequence, step.sequence[1:], strict=False):
                for path in graph.members[second.id]:
                    assert graph.before(path).issuperset(graph.members[first.id])
        elif isinstance(step, ParallelStep):
            for one in step.parallel:
                for other in step.parallel:
                    if one is not other:
                        apart = graph.members[other.id]
                        assert all(not graph.before(path).intersection(apart) for path in graph.members[one.id])


@given(plans(20) | rich_plans())
@settings(max_examples=100, deadline=None)
def test_a_plan_is_the_same_after_it_was_written_and_read(shaped: Shaped) -> None:
    plan = check_plan(shaped)
    assert check_plan(plan.dump()) == plan


@cache
def empty_database() -> bytes:
    """A database with its tables: making them takes longer than a run."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "interhub.db"
        open_database(f"sqlite:///{path}").dispose()
        return path.read_bytes()


def prepare(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "interhub.db").write_bytes(empty_database())


def agents(calls: list[str], interleaving: int = 0) -> list[ScriptedAgent]:
    """Agents that take turns in an order that `interleaving` says."""

    async def take_turns(call: Call) -> None:
        calls.append(call.idempotency_key)
        for _ in range(Random(f"{interleaving} {call.idempotency_key}").randrange(12) if interleaving else 0):
            await anyio.lowlevel.checkpoint()

    async def work(call: Call, report: Report) -> Outcome:
        await take_turns(call)
        return answer(f"did {asked(call)}")

    async def ask(call: Call, report: Report) -> Outcome:
        await take_turns(call)
        return question("Well?", state=1) if call.resume is None else answer(text_of(call.resume.answer))

    async def fail(call: Call, report: Report) -> Outcome:
        await take_turns(call)
        raise refused("no")

    return [
        ScriptedAgent("worker").on("work", work),
        ScriptedAgent("asker").on("ask", ask),
        ScriptedAgent("breaker").on("fail", fail),
    ]


async def carry_out(
    directory: Path, engine: MemoryEngine, plan: Shaped, calls: list[str], interleaving: int
) -> tuple[Run, tuple[Event, ...]]:
    """Run a plan to its end, answering whatever it asks."""
    prepare(directory)
    async with supervised(directory, *agents(calls, interleaving), engine=engine, documents=(TEAM,)) as world:
        run = await world.run("x", workflow=str(plan), key="the one")
        with anyio.fail_after(5):
            while not run.state.ended:
                run = await world.supervisor.wait(ALICE, run.id)
                for asked_now in run.questions:
                    given_answer = Answer(parts=(TextPart(text="yes"),), by=ALICE)
                    with suppress(QuestionNotFound):  # the run may have failed, or have its answer, meanwhile
                        await world.supervisor.answer(ALICE, run.id, given_answer, asked_now.id)
                if run.questions:
                    run = await world.supervisor.get(ALICE, run.id)
        assert run.error is None or run.error.reason != "INTERNAL", run.error
        return run, await world.supervisor.events(ALICE, run.id)


def recorded_work(records: dict[str, Record], run_id: str) -> set[str]:
    """Idempotency keys of the calls that are recorded."""
    keys: set[str] = set()
    for workflow, record in records.items():
        outer = workflow.partition(".")[2]
        for name, _ in record.calls.values():
            if name.startswith("step ") and "#" in name:
                path, _, number = name.removeprefix("step ").partition("#")
                step = f"{outer}.{path}" if outer else path
                keys.add(f"{run_id}/{step}" + (f"#{number}" if number != "0" else ""))
    return keys


@given(plans(5) | rich_plans(), st.floats(0, 1), st.integers(1, 1000), st.integers(1, 1000))
@settings(max_examples=35, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_run_cut_off_anywhere_goes_on_to_the_same_end_without_doing_recorded_work_again(
    shaped: Shaped, where: float, first: int, other: int
) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            engine = MemoryEngine()
            whole, _ = await carry_out(directory, engine, shaped, [], first)
            # At the latest before the last call is recorded, which writes the final event first.
            left = engine.cut(int(where * (len(engine.order) - 1)))
            recorded = recorded_work(left, whole.id)
            ended = ended_children(left)
            after: list[str] = []
            # With an empty journal: it must come to tell the same, from the record and from what is done anew.
            engine = MemoryEngine(left)
            again, _ = await carry_out(directory / "again", engine, shaped, after, other)
            assert again.state is whole.state
            assert not recorded.intersection(after)
            # What a failure stops beside it is a matter of timing, until it is recorded.
            if not any(word in str(shaped) for word in FAILING):
                assert (again.parts, again.structured) == (whole.parts, whole.structured)
                # A child run flushes the journal before its end is recorded: what is lost here, a crash cannot lose.
                told = [step for step in whole.steps if not step.path.startswith(ended)]
                assert [replace_times(step) for step in again.steps] == [replace_times(step) for step in told]

    anyio.run(scenario)


FAILING = ("breaker", "output_schema", "'event'", "'budget'")


@given(plans(5) | rich_plans(), st.integers(1, 1000), st.integers(1, 1000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_run_of_which_all_is_recorded_decides_the_same_in_the_same_order_and_does_nothing(
    shaped: Shaped, first: int, other: int
) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            engine = MemoryEngine()
            whole, events = await carry_out(directory, engine, shaped, [], first)
            left = engine.cut(len(engine.order))
            after: list[str] = []
            again, told = await carry_out(directory / "again", MemoryEngine(left), shaped, after, other)
            assert after == []
            assert (again.state, again.error) == (whole.state, whole.error)
            assert (again.parts, again.structured) == (whole.parts, whole.structured)
            ended = ended_children(left)
            assert decisions(told, ended) == decisions(events, ended)

    anyio.run(scenario)


DECIDED = frozenset(
    {
        *(EventKind.RUN_PLANNED, EventKind.STEP_STARTED, EventKind.STEP_DECIDED, EventKind.STEP_WAITING),
        *(EventKind.QUESTION_ASKED, EventKind.MEMORY_WRITTEN),
    }
)


def decisions(events: Sequence[Event], ended: tuple[str, ...]) -> list[tuple[str, EventKind, int, str]]:
    """What a run decided, in its order; without child runs of whose end alone there is a record."""
    found = [event for event in events if event.kind in DECIDED and event.attempt <= 1]
    return [
        (event.step, event.kind, event.n, str(event.payload.get("why")))
        for event in found
        # A child run's plan is told under the path of the step that it is.
        if not (event.step + "." * (event.kind is EventKind.RUN_PLANNED)).startswith(ended)
    ]


def ended_children(records: dict[str, Record]) -> tuple[str, ...]:
    """Beginnings of the paths of steps within child runs whose end is recorded."""
    names = [name for record in records.values() for name, _ in record.calls.values() if name.startswith("child ")]
    return tuple(name.partition(".")[2] + "." for name in names)


def replace_times(step: Any) -> Any:
    why = "" if step.why.startswith("waits") else step.why  # until when, is a time too
    return replace(step, started_at=None, ended_at=None, why=why)


def test_a_run_that_makes_other_calls_than_before_is_caught() -> None:
    async def scenario() -> None:
        async def execute(durable: Any, given_input: Any) -> Any:
            async def body() -> int:
                return 1

            await durable.step("other", body)
            return {}

        errors: list[Exception] = []

        async def crashed(run_id: str, given_input: Any, error: Exception) -> None:
            errors.append(error)

        engine = MemoryEngine({"r": Record(given={}, calls={1: ("step first", 1)})})
        await engine.launch(execute, crashed)
        await engine.start("r", {})
        with anyio.fail_after(5):
            while not errors:
                await anyio.lowlevel.checkpoint()
        await engine.stop()
        assert isinstance(errors[0], NotDeterministic)

    anyio.run(scenario)


async def carry_on(kept: Shaped) -> Run:
    """Carry on with a run of an earlier version, of which everything but its end was recorded."""
    records = {
        one["run"]: Record(
            given=one["given"], calls={int(n): (name, result) for n, (name, result) in one["calls"].items()}
        )
        for one in kept["records"]
    }
    calls: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        run_id, given_then = kept["run"], records[kept["run"]].given
        prepare(directory)
        engine = MemoryEngine(records)
        async with supervised(directory, *agents(calls), engine=engine, documents=(TEAM,)) as world:
            run = await world.run("x", workflow=str(given_then["workflow"]), key="the one")
            assert run.id == run_id
            with anyio.fail_after(10):
                while not run.state.ended:  # what was asked and answered then is told again, one after the other
                    run = await world.supervisor.wait(ALICE, run.id)
    assert calls == [], "nothing that was recorded is done again"
    return run


def test_a_run_that_an_earlier_version_began_goes_on_after_an_upgrade() -> None:
    kept: Shaped = json.loads((Path(__file__).parent / "recorded" / "plan-1.json").read_text())

    async def scenario() -> None:
        run = await carry_on(kept)
        assert run.state is RunState.COMPLETED
        assert run.structured == kept["answer"]

    anyio.run(scenario)
