"""A supervisor that plans by a model, as a process to be killed: `python -m tests.support.planned_hub DIRECTORY URL`.

The agent `holder` works until it is killed, unless the file `go` is in the directory.
"""

import json
import sys
from pathlib import Path

import anyio

from interhub.adapters import Call, Outcome, Report, text_of
from interhub.adapters.testing import ScriptedAgent, answer, asked
from interhub.hub.supervisor.engine import DbosEngine
from interhub.hub.supervisor.llm import Models
from interhub.hub.supervisor.llm_pydantic_ai import ModelSpec, PydanticAiModel
from tests.support.supervised import echo, supervised


def say(kind: str, **fields: object) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps({"kind": kind, **fields}) + "\n")
    sys.stdout.flush()


async def main(directory: Path, url: str) -> None:
    """Carry out one goal, or go on with it."""

    async def hold(call: Call, report: Report) -> Outcome:
        say("holding")
        if not (directory / "go").exists():
            await anyio.sleep_forever()
        return answer(f"held: {asked(call)}")

    models = Models({"test": PydanticAiModel(ModelSpec(name="test", model="m", base_url=url))}, planner="test")
    agents = (ScriptedAgent("holder").on("hold", hold, description="hold things"), echo("writer"))
    engine = DbosEngine(f"sqlite:///{directory / 'engine.db'}")
    async with supervised(directory, *agents, engine=engine, models=models) as world:
        run = await world.done(await world.run("hold owls", key="once"))
        say("ended", state=run.state.value, text=text_of(run.parts))


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
