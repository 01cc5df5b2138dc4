"""Carries out a plan: the loop that every run and child run executes in the durable engine.

It is begun again from its start after a crash, and then decides the same: only by its input and by recorded results.
Each concurrent branch is exactly one recorded call, begun in the order of the plan:

    a step        one call of an agent (`delegation`); gives a value, an error, a question or the need of a child run
    a child run   a plan within the plan, or a team's or workflow's own plan
    a message     the answer to a question

What it tells the journal on the way it tells again on a replay, where it is known already; nothing is awaited for it
but in the last recorded step, which appends the run's final event.
"""

import anyio.to_thread
import sqlalchemy as sa

from interhub.adapters.content import message_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BadRequest

from .delegation import Delegator
from .durable import Durable
from .envelope import (
    VERSION,
    failed,
    failed_because,
    mapping,
    normalised,
    principal_from_json,
    sequence,
    text,
)
from .execution import Execution
from .facts import final_fact
from .journal import Journal, outlasting
from .model import load_plan
from .pauses import Pauses
from .planner import Planned, Planners, Task, declared
from .rerun import PLAN, Earlier
from .waits import Signals


class Interpreter:
    """Executes runs. One for all of them: what a run knows is in its `Execution`."""

    def __init__(
        self,
        *,
        planners: Planners,
        delegator: Delegator,
        journal: Journal,
        signals: Signals,
        pauses: Pauses,
        database: sa.Engine,
    ) -> None:
        self._planners = planners
        self._delegator = delegator
        self._journal = journal
        self._signals = signals
        self._pauses = pauses
        self._database = database

    async def execute(self, durable: Durable, given: JsonObject) -> JsonObject:
        """Execute a run or child run, and return its envelope."""
        if given.get("version") != VERSION:
            return failed_because("INTERNAL", f"the run was begun by another interhub (format {given.get('version')})")
        earlier = Earlier()
        if "earlier" in given:
            earlier = await outlasting(lambda: anyio.to_thread.run_sync(Earlier.of, given, self._database))
        execution = Execution(
            durable,
            given,
            earlier=earlier,
            delegator=self._delegator,
            journal=self._journal,
            signals=self._signals,
            pauses=self._pauses,
            database=self._database,
        )
        execution.begin()
        await self._pauses.passed(text(given, "root"))
        planned = await self._plan(durable, given, earlier)
        if isinstance(planned, Planned):
            envelope = await execution.carry_out(planned)
        else:
            envelope = planned
        if durable.id == text(given, "root"):
            # No step of its own: the event is known by what it is, so that telling it again adds nothing.
            await self._finish(text(given, "root"), envelope)
        else:
            # Once its end is recorded a child is not executed again, and could not tell again what was not yet written.
            await self._journal.flush()
        return envelope

    async def crashed(self, run_id: str, given: JsonObject, error: Exception) -> None:
        """Tell of an error of ours that ended a run."""
        root = text(given, "root")
        if run_id == root:
            await self._finish(root, failed(error))

    async def _plan(self, durable: Durable, given: JsonObject, earlier: Earlier) -> "Planned | JsonObject":
        task = task_of(given)
        try:
            known = declared(task)
        except BadRequest as error:
            return normalised(failed(error))
        if known is not None:
            return known

        async def make() -> Json:
            try:
                planned = await outlasting(lambda: self._planners.plan(task))
            except Exception as error:  # the edge of a step
                return normalised(failed(error))
            return normalised(
                {
                    "ok": True,
                    "plan": planned.plan.dump(),
                    "planner": planned.planner,
                    "why": planned.why,
                    "inputs": planned.inputs,
                    "members": list(planned.members),
                    "trail": list(planned.trail),
                }
            )

        made = earlier.plan if earlier.plan is not None else mapping(await durable.step(PLAN, make))
        if made.get("ok") is not True:
            return made
        return Planned(
            plan=load_plan(mapping(made.get("plan"))),
            planner=text(made, "planner"),
            why=text(made, "why"),
            inputs=mapping(made.get("inputs")),
            members=tuple(str(member) for member in sequence(made.get("members"))),
            trail=tuple(str(agent) for agent in sequence(made.get("trail"))),
        )

    async def _finish(self, root: str, envelope: JsonObject) -> None:
        await self._journal.append(final_fact(root, envelope))


def task_of(given: JsonObject) -> Task:
    """Return what a run's or child run's input asks to be planned."""
    workflow = given.get("workflow")
    return Task(
        principal=principal_from_json(mapping(given.get("principal"))),
        goal=message_from_json(mapping(given.get("goal"))),
        agent_id=text(given, "agent"),
        capability=text(given, "capability"),
        arguments=mapping(given.get("arguments")),
        workflow=mapping(workflow) if workflow is not None else None,
        inputs=mapping(given.get("inputs")),
        members=tuple(str(member) for member in sequence(given.get("members"))),
        trail=tuple(str(agent) for agent in sequence(given.get("trail"))),
    )
