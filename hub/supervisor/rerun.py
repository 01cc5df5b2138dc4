"""Doing a run again from one of its steps: what the steps before it gave is taken over into a new run.

Kept is what ended well and does not come after the step: what the engine recorded of calls and child runs, what people
answered, which events came. The new run makes the same plan of it, and asks nobody again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import anyio.to_thread
import orjson
import sqlalchemy as sa
from sqlalchemy import Connection, select

from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BadRequest
from interhub.registry.database import blob_uses, insert_new, questions, reading, waits

from .asking import answered
from .blobs import load_blob
from .durable import Engine
from .envelope import mapping, text
from .graph import Graph, compile_steps
from .model import AskStep, ChooseStep, LeafStep, LoopStep, MapStep, Plan, WaitStep, load_plan
from .plan_shape import nearest
from .planner import Planned
from .records import RunRecord
from .run import RunState, StepView
from .waits import received

PLAN = "plan"
"""Name of the recorded step that made a run's plan."""


@dataclass(frozen=True)
class Earlier:
    """What a run takes over from an earlier one."""

    run_id: str = ""
    plan: JsonObject | None = None
    """The record of how it was planned, where a planner did."""
    steps: Mapping[str, JsonObject] = field(default_factory=dict[str, JsonObject])
    """By path, as `collected` has it."""

    @staticmethod
    def of(given: JsonObject, database: sa.Engine) -> "Earlier":
        """Read what a run's input says that it takes over; blocks."""
        shaped = mapping(given.get("earlier"))
        if not shaped:
            return Earlier()
        kept = load_blob(database, text(shaped, "blob"))
        plan = kept.get("plan")
        steps = {path: mapping(one) for path, one in mapping(kept.get("steps")).items()}
        return Earlier(text(shaped, "run"), mapping(plan) if plan is not None else None, steps)

    def envelope(self, path: str, step: LeafStep) -> JsonObject | None:
        """Return what a step gave in the earlier run; None where it is to be done."""
        kept = self.steps.get(path)
        if kept is None:
            return None
        match step:
            case AskStep():
                return answered(step, mapping(kept.get("result")))
            case WaitStep():
                return received(step, kept.get("result"))
            case MapStep() | LoopStep() | ChooseStep():
                return None  # its own steps were kept, and give the same again
            case _:
                return mapping(kept.get("envelope")) or None


async def collected(
    record: RunRecord,
    steps: Sequence[StepView],
    planned: Planned | None,
    from_step: str,
    engine: Engine,
    database: sa.Engine,
) -> dict[str, Json]:
    """Return what is kept of a run that has ended: how it was planned, and by path what steps gave.

    Raises:
        BadRequest: the run was never planned, or has no such step of its own.
    """
    recorded = await engine.recorded(record.id)
    before = await anyio.to_thread.run_sync(Earlier.of, record.spec, database)
    made = recorded_plan(recorded) or mapping(before.plan)
    if planned is None and made.get("ok") is not True:
        raise BadRequest(f"run {record.id} had no plan yet", "give the goal again: nothing of it can be kept")
    plan = planned.plan if planned is not None else load_plan(mapping(made.get("plan")))
    tops = _kept(plan, steps, from_step)
    asked, waited = await anyio.to_thread.run_sync(_answers, database, record.id)
    kept: dict[str, Json] = {}
    for view in steps:
        path = view.path
        if view.state is not RunState.COMPLETED or not any(path == top or path.startswith(f"{top}.") for top in tops):
            continue
        if path in before.steps:  # it was kept in that run, too
            kept[path] = before.steps[path]
            continue
        envelope = _last_well(recorded, path)
        if envelope is None:
            child = await engine.result(f"{record.id}.{path}")
            envelope = child if child is not None and child.get("ok") is True else None
        if envelope is not None:
            kept[path] = {"envelope": {key: one for key, one in envelope.items() if key not in ("spent", "routed")}}
        else:
            kept[path] = {"result": asked.get(path, waited.get(path))}
    return {"plan": made if planned is None else None, "steps": kept}


def use_blobs(connection: Connection, run_id: str, kept: JsonObject) -> None:
    """Note that a run uses the large values among what it takes over."""
    for one in mapping(kept.get("steps")).values():
        if name := text(mapping(mapping(one).get("envelope")), "blob"):
            insert_new(connection, blob_uses, {"run_id": run_id, "blob_id": name})


def _kept(plan: Plan, steps: Sequence[StepView], from_step: str) -> list[str]:
    """Return the paths of a plan's own steps that ended well and do not come after one."""
    graph: Graph = compile_steps(plan.steps)
    paths = [node.path for node in graph.nodes]
    begins = {from_step} if from_step in paths else set(graph.members.get(from_step, ()))
    if not begins:
        inside = next((path for path in paths if from_step.startswith(f"{path}.")), "")
        hint = f"; it is within {inside}: name that" if inside else nearest(from_step, [*paths, *graph.members])
        raise BadRequest(f"the run's plan has no step {from_step!r} of its own{hint}")
    ended = {view.path for view in steps if view.state is RunState.COMPLETED}
    return [path for path in paths if path in ended and path not in begins and not graph.before(path) & begins]


def _last_well(recorded: Mapping[str, Json], path: str) -> JsonObject | None:
    """Return the last envelope of a call's rounds that is a value: after questions, and other agents."""
    rounds = sorted((int(name.rpartition("#")[2]), name) for name in recorded if name.rpartition("#")[0] == path)
    for _, name in reversed(rounds):
        envelope = mapping(recorded[name])
        if envelope.get("ok") is True:
            return envelope
    return None


def _answers(database: sa.Engine, run_id: str) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return what people answered, and which events came, by the path of the step that wanted them."""
    answers = select(questions.c.step, questions.c.answer).where(
        questions.c.run_id == run_id, questions.c.state == "answered"
    )
    came = select(waits.c.step, waits.c.delivered).where(waits.c.run_id == run_id, waits.c.delivered.is_not(None))
    with reading(database) as connection:
        asked = {row.step: cast("Json", row.answer) for row in connection.execute(answers)}
        waited = {row.step: cast("Json", row.delivered) for row in connection.execute(came)}
    return asked, waited


def dumped(kept: JsonObject) -> bytes:
    """Write what is kept, for a blob."""
    return orjson.dumps(kept)


def recorded_plan(recorded: Mapping[str, Json]) -> JsonObject:
    """Return the record of a run's first plan, whoever made it, out of all that is recorded of it."""
    made = mapping(recorded.get(PLAN))
    if "plan" in made:
        return made
    for name, one in recorded.items():
        envelope = mapping(one)
        if name.startswith(f"{PLAN}.model#") and envelope.get("ok") is True:
            return {"ok": True, **mapping(envelope.get("value"))}
    return mapping(recorded.get(f"{PLAN}.otherwise"))
