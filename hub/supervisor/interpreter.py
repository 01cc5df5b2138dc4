"""Carries out a plan: the loop that every run and child run executes in the durable engine.

It is begun again from its start after a crash, and then decides the same: only by its input and by recorded results.
Each concurrent branch is exactly one recorded call, begun in the order of the plan:

    a step        one call of an agent (`delegation`); gives a value, an error, a question or the need of a child run
    a child run   a plan within the plan, or a team's or workflow's own plan
    a message     the answer to a question

What it tells the journal on the way it tells again on a replay, where it is known already; nothing is awaited for it
but in the last recorded step, which appends the run's final event.
"""

from collections.abc import Sequence

import anyio.to_thread
import sqlalchemy as sa

from interhub.adapters.content import message_from_json
from interhub.agent_cards import JsonObject

from .delegation import Delegator
from .durable import Durable
from .envelope import (
    VERSION,
    budget_from_json,
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
from .ledger import Ledger
from .memory import Memory
from .pauses import Pauses
from .planner import Planned, Task
from .planning import Planning
from .recalls import Recalls
from .rerun import Earlier
from .run import EventKind
from .scene import Scene
from .waits import Signals


class Interpreter:
    """Executes runs. One for all of them: what a run knows is in its `Execution`."""

    def __init__(
        self,
        *,
        planning: Planning,
        delegator: Delegator,
        journal: Journal,
        signals: Signals,
        pauses: Pauses,
        recalls: Recalls,
        database: sa.Engine,
    ) -> None:
        self._planning = planning
        self._delegator = delegator
        self._journal = journal
        self._signals = signals
        self._pauses = pauses
        self._recalls = recalls
        self._database = database

    async def execute(self, durable: Durable, given: JsonObject) -> JsonObject:
        """Execute a run or child run, and return its envelope."""
        if given.get("version") != VERSION:
            return failed_because("INTERNAL", f"the run was begun by another interhub (format {given.get('version')})")
        earlier = Earlier()
        if "earlier" in given:
            earlier = await outlasting(lambda: anyio.to_thread.run_sync(Earlier.of, given, self._database))
        scene, ledger = Scene(durable, given, self._journal), Ledger(budget_from_json(mapping(given.get("budget"))))
        if not scene.prefix:
            scene.tell(EventKind.RUN_STARTED)
        await self._pauses.passed(scene.root)
        planned = await self._planning.first(scene, task_of(given), ledger, earlier)
        envelope = await self._carry_out(scene, planned, ledger, earlier) if isinstance(planned, Planned) else planned
        envelope = normalised({**envelope, "spent": ledger.spent()})
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

    async def _carry_out(self, scene: Scene, planned: Planned, ledger: Ledger, earlier: Earlier) -> JsonObject:
        """Carry out a plan, and others in its place when it fails, as far as its planner goes."""
        task, done = task_of(scene.given), list[Execution]()
        memory = Memory(scene, mapping(scene.given.get("memory")))
        while True:
            execution = Execution(
                scene,
                planned,
                memory=memory,
                ledger=ledger,
                earlier=earlier,
                delegator=self._delegator,
                signals=self._signals,
                pauses=self._pauses,
                recalls=self._recalls,
                database=self._database,
            )
            done.append(execution)
            envelope = await execution.carry_out()
            if envelope.get("ok") is True:
                break
            error, gave = mapping(envelope.get("error")), {**planned.gave, **execution.gave()}
            following = await self._planning.another(scene, task, ledger, planned, error, gave)
            if following is None:
                break
            planned = following
        if envelope.get("ok") is True and planned.answer is not None:
            gave = {**planned.gave, **execution.gave()}
            envelope = await self._planning.answer(scene, ledger, planned, gave, execution.artifacts())
        if envelope.get("ok") is not True:
            # What the plans did is undone only now: what one had done, the next could build on.
            troubles = [trouble for one in reversed(done) for trouble in await one.undo()]
            envelope = _with_troubles(envelope, troubles)
        return {**envelope, **memory.report()}

    async def _finish(self, root: str, envelope: JsonObject) -> None:
        await self._journal.append(final_fact(root, envelope))


def _with_troubles(envelope: JsonObject, troubles: Sequence[str]) -> JsonObject:
    if not troubles:
        return envelope
    error = mapping(envelope.get("error"))
    return {**envelope, "error": {**error, "message": "; ".join([text(error, "message"), *troubles])}}


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
        within=text(given, "prefix") != "",
    )
