"""What the supervisor needs of a durable engine: the port that `engine` (DBOS) and `engine_memory` fill.

A run is one execution of one function that may be begun again from its start after a crash. Whatever it does through
`Durable` is recorded, and on the next execution answered from the record. Records are found by the order of the calls,
so a run makes the same calls in the same order each time: it decides only by its input and by recorded results, starts
its branches one at a time, and each branch is exactly one recorded call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from interhub.agent_cards import Json, JsonObject

Body: TypeAlias = Callable[[], Awaitable[Json]]
"""What a step does. It may run twice, where a crash comes between its end and its record."""


class Branch(Protocol):
    """One recorded call under way beside others."""

    def result(self) -> Json:
        """Return what it gave; it has ended."""
        ...

    async def drop(self) -> None:
        """Stop it and forget it, if it has not ended."""
        ...


class Durable(Protocol):
    """One execution of a run, as the run sees it."""

    @property
    def id(self) -> str:
        """Id of the run or child run."""
        ...

    @property
    def recovered(self) -> bool:
        """True when an earlier process began it: its steps may have been carried out before, without a record."""
        ...

    async def step(self, name: str, body: Body) -> Json:
        """Do something once and record its result, which is JSON."""
        ...

    async def begin_step(self, name: str, body: Body) -> Branch:
        """The same, beside other branches. It is told of a cancellation by its task being cancelled."""
        ...

    async def begin_child(self, child_id: str, given: JsonObject) -> Branch:
        """Run a child. Its result is what it returned; `{"ok": false, "error": ...}` when it was cancelled or broke."""
        ...

    async def begin_receive(self, topic: str, timeout_s: float) -> Branch:
        """Wait for a message to this run; its result is None when the time is up."""
        ...

    async def wait(self, branches: Sequence[Branch]) -> tuple[Branch, ...]:
        """Return those that have ended, in the order given, once there is at least one."""
        ...

    async def cancel_child(self, child_id: str) -> None:
        """Cancel a child and its children."""
        ...


Execute: TypeAlias = Callable[[Durable, JsonObject], Awaitable[JsonObject]]
"""The function that a run executes."""

Crashed: TypeAlias = Callable[[str, JsonObject, Exception], Awaitable[None]]
"""Told of an error that the function did not handle: run id, input, error."""


class EngineState(StrEnum):
    """How the engine sees a run."""

    ACTIVE = "active"
    """It runs, or waits to be run."""
    DONE = "done"
    """It returned."""
    BROKEN = "broken"
    """It raised."""
    CANCELED = "canceled"


class Engine(Protocol):
    """Executes runs, and goes on with those of an earlier process."""

    async def launch(self, execute: Execute, crashed: Crashed) -> None:
        """Begin, on the running event loop; runs that were under way are taken up within seconds."""
        ...

    async def start(self, run_id: str, given: JsonObject, *, tenant: str = "") -> None:
        """Start a run, or queue it where its tenant's runs are limited. The same id again changes nothing."""
        ...

    async def send(self, run_id: str, topic: str, message: Json, key: str) -> None:
        """Send a message to a run or child run; the same key again changes nothing."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Cancel a run and its children: nothing more is recorded of them."""
        ...

    async def drop(self, run_id: str) -> None:
        """End what executes a cancelled run and its children in this process, once their steps were told to stop."""
        ...

    async def states(self, run_ids: Collection[str]) -> Mapping[str, EngineState]:
        """Return how runs stand; those it has never heard of are missing."""
        ...

    async def executors(self, run_id: str) -> frozenset[str]:
        """Return the replicas that execute a run and its children now; empty names are this process alone."""
        ...

    async def forget(self, run_ids: Collection[str]) -> None:
        """Remove what is recorded of runs that have ended, and of their children."""
        ...

    async def recorded(self, run_id: str) -> Mapping[str, Json]:
        """Return what the steps of a run gave, by name, but for those of its children."""
        ...

    async def result(self, run_id: str) -> JsonObject | None:
        """Return what a run that is done returned; None for any other."""
        ...

    async def stop(self) -> None:
        """End. Runs under way stay so and are taken up by the next process."""
        ...


def is_within(name: str, run_id: str) -> bool:
    """Whether an execution is that of a run or child run, or of a child below it."""
    return name == run_id or name.startswith(f"{run_id}.")


class TaskBranch:
    """A branch that is one asyncio task: it makes one recorded call."""

    def __init__(self, work: Coroutine[Any, Any, Json]) -> None:
        self.task: asyncio.Task[Json] = asyncio.ensure_future(work)

    def result(self) -> Json:
        """Return what the call gave, or raise what it raised."""
        return self.task.result()

    async def drop(self) -> None:
        """End the task, and return when it has ended."""
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.exception()  # looked at, so that asyncio does not report it
