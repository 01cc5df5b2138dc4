"""A conversation goes on under the agent's own id of it, in whatever process, and for its principal alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from interhub.adapters import Call, Completed, Message, Outcome, Principal, Report, Role, TaskBound, TextPart
from interhub.adapters.testing import ScriptedAgent
from interhub.hub.supervisor.engine_memory import MemoryEngine
from interhub.hub.supervisor.run import Assignment, RunState
from tests.support.supervised import ALICE, BOB, World, supervised

pytestmark = pytest.mark.anyio

ELSEWHERE = Principal(subject="alice", tenant="elsewhere")


def talker(name: str = "talker", *, binds: bool) -> ScriptedAgent:
    """An agent that names its conversations: with its tasks, or with messages."""

    async def talk(call: Call, report: Report) -> Outcome:
        context = call.remote_context or f"{call.principal.subject}-{call.idempotency_key}"
        if binds:
            await report(TaskBound(remote_task="t", remote_context=context, ended=True))
            return Completed()
        return Completed(as_message=True, remote_context=context)

    return ScriptedAgent(name).on("talk", talk)


async def say(world: World, context: str, *, agent: str = "talker", by: Principal = ALICE) -> str:
    """Say something in a context, and return the context that it is in."""
    goal = Message(role=Role.USER, parts=(TextPart(text="go on"),))
    run = await world.supervisor.submit(Assignment(principal=by, goal=goal, agent_id=agent, context_id=context))
    assert (await world.supervisor.wait(by, run.id, timeout_s=20)).state is RunState.COMPLETED
    return run.context_id


@pytest.mark.parametrize("binds", [True, False])
async def test_it_goes_on_in_the_next_process_and_for_its_principal_alone(tmp_path: Path, binds: bool) -> None:
    first, second, other = talker(binds=binds), talker(binds=binds), talker("other", binds=binds)
    async with supervised(tmp_path, first, engine=MemoryEngine()) as world:
        context = await say(world, "")
        await say(world, context)
        added = (await world.registry.get("default", "talker")).created_at
    begun = first.calls[0]
    named = f"alice-{begun.idempotency_key}"
    assert [call.remote_context for call in first.calls] == ["", named]
    async with supervised(tmp_path, second, other, engine=MemoryEngine()) as world:
        for agent_id in ("talker", "other"):
            agent = replace(await world.registry.get("default", agent_id), created_at=added)
            await world.registry.replace(agent)
            await world.registry.add(replace(agent, tenant=ELSEWHERE.tenant))
        await say(world, context)
        await say(world, context, by=BOB)
        await say(world, context, by=ELSEWHERE)
        await say(world, context, agent="other")
        await say(world, "")
    assert [call.remote_context for call in second.calls] == [named, "", "", ""]
    assert [call.remote_context for call in other.calls] == [""]


async def test_an_agent_that_was_removed_and_added_again_is_told_of_no_earlier_one(tmp_path: Path) -> None:
    first, second = talker(binds=True), talker(binds=True)
    async with supervised(tmp_path, first, engine=MemoryEngine()) as world:
        context = await say(world, "")
    async with supervised(tmp_path, second, engine=MemoryEngine()) as world:  # which adds its agents
        await say(world, context)
        await say(world, context)
    assert second.calls[0].remote_context == ""
    assert second.calls[1].remote_context == f"alice-{second.calls[0].idempotency_key}"


async def test_a_step_of_a_run_goes_on_with_what_an_earlier_step_began(tmp_path: Path) -> None:
    agent = talker(binds=False)
    plan = "steps: [{id: a, call: {agent: talker, message: x}}, {id: b, call: {agent: talker, message: x}}]"
    async with supervised(tmp_path, agent, engine=MemoryEngine()) as world:
        await world.done(await world.run(workflow=plan))
    assert [bool(call.remote_context) for call in agent.calls] == [False, True]
