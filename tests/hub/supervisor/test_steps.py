"""Each kind of step on the real engine: what it does, what it gives, and what is told of it."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from interhub.adapters import Call, Outcome, Report, text_of
from interhub.adapters.testing import ScriptedAgent, answer, asked, refused
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import Event, EventKind, Run
from tests.support.supervised import ALICE, World, supervised

pytestmark = pytest.mark.anyio


def words(run: Run) -> str:
    return text_of(run.parts)


async def events(world: World, run: Run, kind: EventKind | None = None) -> list[Event]:
    found = await world.supervisor.events(ALICE, run.id)
    return [event for event in found if kind in (None, event.kind)]


async def until(world: World, run: Run, kind: EventKind) -> None:
    """Return when a run has told an event of that kind."""
    with anyio.fail_after(10):
        async for event in world.supervisor.watch(ALICE, run.id):
            if event.kind is kind:
                return


def parrot(name: str = "parrot") -> ScriptedAgent:
    """An agent that says exactly what it is told."""

    async def play(call: Call, report: Report) -> Outcome:
        return answer(asked(call))

    return ScriptedAgent(name).on("say", play, description="say something")


# Map


async def test_a_map_does_the_same_for_each_item_so_many_at_a_time(tmp_path: Path, engine: DbosEngine) -> None:
    busy, most = 0, 0

    async def work(call: Call, report: Report) -> Outcome:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        busy -= 1
        return answer(asked(call).upper())

    async with supervised(tmp_path, ScriptedAgent("worker").on("work", work), engine=engine) as world:
        run = await world.run(
            workflow="""
            inputs: {names: array}
            steps:
              - id: each
                map:
                  over: inputs.names
                  as: name
                  concurrency: 2
                  steps:
                    - {id: first, call: {agent: worker, message: "{{ index }} {{ name }}"}}
                    - {id: second, call: {agent: worker, message: "{{ steps.first }}!"}}
              - {id: all, call: {agent: worker, message: "{{ steps.each.data | join(',') }}"}}
            """,
            inputs={"names": ["ann", "bob", "cid", "dan", "eve"]},
        )
        run = await world.done(run)
        assert words(run) == "0 ANN!,1 BOB!,2 CID!,3 DAN!,4 EVE!"
        assert 1 < most <= 2
        assert [step.path for step in run.steps][:5] == [
            "each",
            "each.0.first",
            "each.0.second",
            "each.1.first",
            "each.1.second",
        ]
        assert run.steps[0].why == "5 items, 2 at a time"
        (decided,) = await events(world, run, EventKind.STEP_DECIDED)
        assert (decided.step, decided.payload["why"]) == ("each", "5 items, 2 at a time")


async def test_items_that_fail_fail_the_map_or_leave_a_gap(tmp_path: Path, engine: DbosEngine) -> None:
    async def work(call: Call, report: Report) -> Outcome:
        if "bad" in asked(call):
            raise refused("it is bad")
        return answer(asked(call))

    plan = """
    steps:
      - id: each
        map: {{over: "{{{{ ['a', 'bad', 'c'] }}}}", concurrency: 1, on_item_error: {rule},
              steps: [{{id: one, call: {{agent: worker, message: "{{{{ item }}}}"}}}}]}}
    output: {{given: "{{{{ steps.each.data }}}}", errors: "{{{{ steps.each.errors }}}}"}}
    """
    agent = ScriptedAgent("worker").on("work", work)
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.done(await world.run(workflow=plan.format(rule="continue")))
        assert run.structured == {
            "given": ["a", None, "c"],
            "errors": [
                {"index": 1, "reason": "AGENT_REFUSED", "message": run.steps[2].error, "step": "each.1.one"},
            ],
        }
        calls = len(agent.calls)
        run = await world.done(await world.run(workflow=plan.format(rule="fail")))
        assert run.error is not None
        assert (run.error.reason, run.error.step) == ("AGENT_REFUSED", "each.1.one")
        assert len(agent.calls) == calls + 2, "the third item was not begun"


@pytest.mark.parametrize(
    ("over", "reason", "told"),
    [
        ("{{ 7 }}", "PLAN_INVALID", "must give a list; it gives a number"),
        ("{{ range(2000) | list }}", "LIMIT_REACHED", "the list has 2000 items; this map may have 1000"),
        ("no list", "PLAN_INVALID", "the text 'no list'"),
    ],
)
async def test_a_map_over_what_is_no_list_or_too_long_fails(
    tmp_path: Path, engine: DbosEngine, over: str, reason: str, told: str
) -> None:
    plan: dict[str, Any] = {"over": over + "{{ '' }}" if over == "no list" else over}
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        plan["steps"] = [{"id": "one", "call": {"agent": "parrot", "message": "x"}}]
        run = await world.done(await world.run(workflow=str({"steps": [{"id": "each", "map": plan}]})))
        assert run.error is not None
        assert run.error.reason == reason
        assert told in run.error.message


async def test_a_map_over_nothing_gives_nothing_and_a_text_that_is_a_json_list_is_one(
    tmp_path: Path, engine: DbosEngine
) -> None:
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: none, map: {over: "{{ [] }}", steps: [{id: a, call: {agent: parrot, message: x}}]}}
              - {id: list, call: {agent: parrot, message: '["x", {"y": 1}]'}}
              - id: each
                map:
                  over: steps.list.text
                  steps: [{id: b, call: {agent: parrot, message: "{{ index }}"}}]
                  output: {was: "{{ item }}", said: "{{ steps.b.text }}"}
            output: ["{{ steps.none.data }}", "{{ steps.each.data }}"]
            """
        )
        run = await world.done(run)
        assert run.structured == [[], [{"was": "x", "said": "0"}, {"was": {"y": 1}, "said": "1"}]]


# Choose


@pytest.mark.parametrize(
    ("amount", "said", "why"),
    [
        (5, "small", "because inputs.amount < 10"),
        (50, "middle", "because {{ inputs.amount < 100 }}"),
        (500, "large", "no condition holds: else"),
    ],
)
async def test_the_first_branch_whose_condition_holds_is_taken(
    tmp_path: Path, engine: DbosEngine, amount: int, said: str, why: str
) -> None:
    agent = parrot()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.run(
            workflow="""
            inputs: {amount: integer}
            steps:
              - id: size
                choose:
                  - {when: inputs.amount < 10, steps: [{id: s, call: {agent: parrot, message: small}}]}
                  - {when: "{{ inputs.amount < 100 }}", steps: [{id: m, call: {agent: parrot, message: middle}}]}
                else: [{id: l, call: {agent: parrot, message: large}}]
              - {id: after, call: {agent: parrot, message: "{{ steps.size.text }}"}}
            """,
            inputs={"amount": amount},
        )
        run = await world.done(run)
        assert words(run) == said
        assert len(agent.calls) == 2
        assert run.steps[0].why == why
        assert run.steps[1].path == f"size.{said[0]}"


async def test_without_a_branch_that_holds_and_an_else_nothing_is_done(tmp_path: Path, engine: DbosEngine) -> None:
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - {id: maybe, choose: [{when: "{{ 1 > 2 }}", steps: [{id: x, call: {agent: parrot, message: x}}]}]}
              - {id: after, call: {agent: parrot, message: "<{{ steps.maybe.text }}>"}}
            """
        )
        run = await world.done(run)
        assert words(run) == "<>"


# Loop


async def test_a_loop_goes_on_until_its_condition_holds_and_sees_its_last_turn(
    tmp_path: Path, engine: DbosEngine
) -> None:
    agent = parrot()
    async with supervised(tmp_path, agent, engine=engine) as world:
        run = await world.run(
            workflow="""
            steps:
              - id: review
                loop:
                  at_most: 5
                  until: turn >= 3
                  steps:
                    - {id: write, call: {agent: parrot, message: "{{ last.text if last else 'draft' }}+{{ turn }}"}}
              - {id: after, call: {agent: parrot, message: "{{ steps.review.text }}"}}
            """
        )
        run = await world.done(run)
        assert words(run) == "draft+1+2+3"
        assert [step.path for step in run.steps] == [
            "review",
            "review.1.write",
            "review.2.write",
            "review.3.write",
            "after",
        ]
        told = [event.payload["why"] for event in await events(world, run, EventKind.STEP_DECIDED)]
        assert told == ["not done after turn 1", "not done after turn 2", "done after turn 3: turn >= 3"]
        assert [call.idempotency_key for call in agent.calls][:2] == [
            f"{run.id}/review.1.write",
            f"{run.id}/review.2.write",
        ]


async def test_a_loop_that_is_never_done_fails_or_gives_its_last_turn(tmp_path: Path, engine: DbosEngine) -> None:
    plan = """
    steps:
      - id: review
        loop: {{at_most: 2, until: "{{{{ false }}}}", on_limit: {rule}, pause_s: 0.01,
               steps: [{{id: write, call: {{agent: parrot, message: "turn {{{{ turn }}}}"}}}}]}}
    """
    async with supervised(tmp_path, parrot(), engine=engine) as world:
        run = await world.done(await world.run(workflow=plan.format(rule="accept")))
        assert words(run) == "turn 2"
        run = await world.done(await world.run(workflow=plan.format(rule="fail")))
        assert run.error is not None
        assert (run.error.reason, run.error.step) == ("LIMIT_REACHED", "review")
        assert "it was not done after 2 turns" in run.error.message
