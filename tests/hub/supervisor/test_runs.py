"""Plans carried out on the real engine by scripted agents."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from interhub.adapters.testing import ScriptedAgent, answer, asked
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.run import EventKind, RunState
from tests.support.supervised import ALICE, World, supervised

pytestmark = pytest.mark.anyio


def echo(name: str) -> ScriptedAgent:
    async def play(call, report):
        return answer(f"{name} heard: {asked(call)}", structured={"by": name})

    return ScriptedAgent(name).on("talk", play, description=f"talk to {name}")


async def test_steps_run_in_order_and_later_ones_see_earlier_answers(tmp_path: Path) -> None:
    one, two = echo("one"), echo("two")
    engine = DbosEngine(f"sqlite:///{tmp_path / 'engine.db'}")
    async with supervised(tmp_path, one, two, engine=engine) as world:
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
        assert run.error is None
        assert run.state is RunState.COMPLETED
        assert [part.text for part in run.parts] == ["two heard: after one heard: say greet by one"]
        assert [(step.path, step.agent_id, step.state) for step in run.steps] == [
            ("a", "one", RunState.COMPLETED),
            ("b", "two", RunState.COMPLETED),
        ]
        events = await world.supervisor.events(ALICE, run.id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        print([e.kind.value for e in events])
