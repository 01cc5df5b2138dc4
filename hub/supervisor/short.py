"""Short runs: one call of one agent that somebody waits for, carried out at once, with the journal as its only record.

The engine's own records cost more than such a call does, and say little that the journal does not: the run is written
before its call, the agent's task as soon as it has a name, and the end in one go with what was given. A run that is
found unfinished after a crash is taken up by the engine, which knows by `UNRECORDED` that its call may have been made,
and asks the agent for the task. So is one that turns out to need more than its call: a question, above all.
"""

import asyncio
from collections.abc import Sequence

import structlog

from interhub.agent_cards import Binding, Json, JsonObject
from interhub.registry import Agent

from .durable import Body, Branch, Crashed, Engine, Execute, TaskBranch
from .run import Assignment

log = structlog.get_logger()

UNRECORDED = "unrecorded"
"""In a run's input: its call may have been made, though the engine has no record of it."""

_A2A = frozenset({Binding.A2A_JSONRPC, Binding.A2A_REST, Binding.A2A_GRPC})


def is_short(assignment: Assignment, agent: Agent | None) -> bool:
    """Whether an assignment makes a short run: one message to an A2A agent, whose end the caller waits for.

    Of other agents' calls nothing can be asked for after a crash; for those the engine's record is worth its price.
    """
    return assignment.waited and assignment.resume is None and agent is not None and agent.endpoint.binding in _A2A


class ShortRuns:
    """Carries out short runs on the running event loop, in this process only."""

    def __init__(self, execute: Execute, crashed: Crashed, engine: Engine) -> None:
        """`engine` takes over those that need more than their call."""
        self._execute = execute
        self._crashed = crashed
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, run_id: str, given: JsonObject, *, tenant: str) -> None:
        """Begin a run that has been written."""
        self._tasks[run_id] = asyncio.ensure_future(self._run(run_id, given, tenant))

    def __contains__(self, run_id: object) -> bool:
        """Whether a run is under way here."""
        return run_id in self._tasks

    async def cancel(self, run_id: str) -> None:
        """End a run whose call has been stopped, and return when nothing of it goes on."""
        if (task := self._tasks.get(run_id)) is not None:
            task.cancel()
            await asyncio.wait([task])

    async def stop(self) -> None:
        """End all, once their calls have been stopped: the next process takes them up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, run_id: str, given: JsonObject, tenant: str) -> None:
        durable = _Unrecorded(run_id)
        try:
            await self._execute(durable, {name: value for name, value in given.items() if name != UNRECORDED})
        except _NeedsEngine:
            await durable.close()
            await self._engine.start(run_id, given, tenant=tenant)
        except asyncio.CancelledError:
            pass  # of this task, or of the call that it waited for: the run was cancelled, or the hub stops
        except Exception as error:
            log.exception("short_run_broke", run_id=run_id)
            await self._crashed(run_id, given, error)
        finally:
            await durable.close()
            self._tasks.pop(run_id, None)


class _NeedsEngine(Exception):
    """The run goes on longer than its call."""


class _Unrecorded:
    """An execution that records nothing (`durable.Durable`)."""

    recovered = False

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self._open: list[TaskBranch] = []

    async def step(self, name: str, body: Body) -> Json:
        return await body()

    async def begin_step(self, name: str, body: Body) -> Branch:
        branch = TaskBranch(_done(body))
        self._open.append(branch)
        return branch

    async def begin_child(self, child_id: str, given: JsonObject) -> Branch:
        raise _NeedsEngine

    async def begin_receive(self, topic: str, timeout_s: float) -> Branch:
        raise _NeedsEngine

    async def wait(self, branches: Sequence[Branch]) -> tuple[Branch, ...]:
        tasks = {branch: branch.task for branch in branches if isinstance(branch, TaskBranch)}
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        return tuple(branch for branch in branches if isinstance(branch, TaskBranch) and branch.task.done())

    async def cancel_child(self, child_id: str) -> None:
        raise _NeedsEngine

    async def close(self) -> None:
        for branch in self._open:
            await branch.drop()


async def _done(body: Body) -> Json:
    return await body()
