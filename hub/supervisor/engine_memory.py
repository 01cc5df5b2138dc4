"""The engine's twin in memory: records calls by number and name as the durable one does, and can be begun again.

For tests that must be fast, and for those of determinism: a run is executed again over any beginning of its record, and
a run that then makes other calls is caught. Nothing outlives the process.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from interhub.agent_cards import Json, JsonObject

from .durable import Body, Branch, Crashed, EngineState, Execute, TaskBranch, is_within


class NotDeterministic(AssertionError):
    """An execution made other calls than the one whose record it is given."""


@dataclass
class Record:
    """What one run has recorded."""

    given: JsonObject
    calls: dict[int, tuple[str, Json]] = field(default_factory=dict[int, tuple[str, Json]])
    """Number of a call to its name and result."""
    state: EngineState = EngineState.ACTIVE
    result: JsonObject | None = None
    messages: dict[str, "asyncio.Future[Json]"] = field(default_factory=dict[str, "asyncio.Future[Json]"])


class _Execution:
    def __init__(self, engine: "MemoryEngine", run_id: str, *, recovered: bool) -> None:
        self._engine = engine
        self._id = run_id
        self._recovered = recovered
        self._drawn = 0
        self._open: list[TaskBranch] = []

    @property
    def id(self) -> str:
        return self._id

    @property
    def recovered(self) -> bool:
        return self._recovered

    async def step(self, name: str, body: Body) -> Json:
        return await self._recorded(f"step {name}", body)

    async def begin_step(self, name: str, body: Body) -> Branch:
        return await self._begin(self.step(name, body))

    async def begin_child(self, child_id: str, given: JsonObject) -> Branch:
        async def body() -> Json:
            return await self._engine.run_child(child_id, given, recovered=self._recovered)

        return await self._begin(self._recorded(f"child {child_id}", body))

    async def begin_receive(self, topic: str, timeout_s: float) -> Branch:
        async def body() -> Json:
            try:
                return await asyncio.wait_for(asyncio.shield(self._engine.message(self._id, topic)), timeout_s)
            except TimeoutError:
                return None

        return await self._begin(self._recorded(f"receive {topic}", body))

    async def wait(self, branches: Sequence[Branch]) -> tuple[Branch, ...]:
        tasks = [branch.task for branch in branches if isinstance(branch, TaskBranch)]

        async def body() -> Json:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return [number for number, task in enumerate(tasks) if task in done]

        ended = await self._recorded("wait", body)
        assert isinstance(ended, list), "a wait gives places"
        numbers = [number for number in ended if isinstance(number, int)]
        await asyncio.wait([tasks[number] for number in numbers])
        return tuple(branches[number] for number in numbers)

    async def cancel_child(self, child_id: str) -> None:
        async def body() -> Json:
            await self._engine.cancel(child_id)
            await self._engine.drop(child_id)
            return None

        await self._recorded(f"cancel {child_id}", body)

    async def close(self) -> None:
        for branch in self._open:
            await branch.drop()

    async def _begin(self, work: Coroutine[Any, Any, Json]) -> Branch:
        branch = TaskBranch(work)
        self._open.append(branch)
        await asyncio.sleep(0)
        return branch

    async def _recorded(self, name: str, body: Body) -> Json:
        self._drawn += 1
        number = self._drawn
        record = self._engine.records[self._id]
        known = record.calls.get(number)
        if known is not None:
            if known[0] != name:
                raise NotDeterministic(f"call {number} of {self._id} was {known[0]!r} and is now {name!r}")
            await asyncio.sleep(0)
            return known[1]
        result: Json = orjson.loads(orjson.dumps(await body()))
        record.calls[number] = (name, result)
        self._engine.order.append((self._id, number))
        return result


class MemoryEngine:
    """Runs in memory."""

    def __init__(self, records: Mapping[str, Record] | None = None) -> None:
        """`records` are those of an earlier engine, whole or cut off: a run of theirs goes on when it is started."""
        self.records: dict[str, Record] = dict(records or {})
        self.order: list[tuple[str, int]] = []
        """Run and number of each call, in the order in which this engine recorded them."""
        self._execute: Execute | None = None
        self._crashed: Crashed | None = None
        self._tasks: dict[str, asyncio.Task[JsonObject]] = {}

    async def launch(self, execute: Execute, crashed: Crashed) -> None:
        """Begin."""
        self._execute, self._crashed = execute, crashed

    async def start(self, run_id: str, given: JsonObject, *, tenant: str = "") -> None:
        """Start a run, or take up one of an earlier engine. The same id again changes nothing."""
        if run_id not in self._tasks:
            recovered = run_id in self.records
            self.records.setdefault(run_id, Record(given=given))
            self._begin(run_id, recovered=recovered)

    async def send(self, run_id: str, topic: str, message: Json, key: str) -> None:
        """Send a message; the first of a topic counts."""
        future = self.message(run_id, topic)
        if not future.done():
            future.set_result(message)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run and its children."""
        for name, record in self.records.items():
            if is_within(name, run_id) and record.state is EngineState.ACTIVE:
                record.state = EngineState.CANCELED

    async def drop(self, run_id: str) -> None:
        """End what executes a cancelled run and its children."""
        left = [task for name, task in self._tasks.items() if is_within(name, run_id) and not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def states(self, run_ids: Collection[str]) -> Mapping[str, EngineState]:
        """Return how runs stand."""
        return {run_id: self.records[run_id].state for run_id in run_ids if run_id in self.records}

    async def executors(self, run_id: str) -> frozenset[str]:
        """Return nobody: there is only this process."""
        return frozenset()

    async def forget(self, run_ids: Collection[str]) -> None:
        """Remove what is recorded of runs and their children."""
        for name in list(self.records):
            if name.partition(".")[0] in run_ids:
                del self.records[name]
                self._tasks.pop(name, None)

    async def recorded(self, run_id: str) -> Mapping[str, Json]:
        """Return what the steps of a run gave, by name."""
        record = self.records.get(run_id)
        calls = record.calls.values() if record is not None else ()
        return {name.removeprefix("step "): given for name, given in calls if name.startswith("step ")}

    async def result(self, run_id: str) -> JsonObject | None:
        """Return what a run that is done returned."""
        return self.records[run_id].result if run_id in self.records else None

    async def stop(self) -> None:
        """End; what was recorded stays in `records`."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cut(self, length: int) -> dict[str, Record]:
        """Return the records as a crash leaves them after that many calls were recorded: for another engine."""
        kept = set(self.order[:length])
        left: dict[str, Record] = {}
        for run_id, record in self.records.items():
            calls = {number: call for number, call in record.calls.items() if (run_id, number) in kept}
            if calls or "." not in run_id:
                left[run_id] = Record(given=record.given, calls=calls)
        return left

    def message(self, run_id: str, topic: str) -> "asyncio.Future[Json]":
        """Return where a message to a run arrives."""
        messages = self.records[run_id].messages
        if topic not in messages:
            messages[topic] = asyncio.get_running_loop().create_future()
        return messages[topic]

    async def run_child(self, child_id: str, given: JsonObject, *, recovered: bool) -> Json:
        """Run a child to its end."""
        if child_id not in self.records:
            self.records[child_id] = Record(given=given)
        task = self._begin(child_id, recovered=recovered)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.cancelled():
            return {"ok": False, "error": {"reason": "CANCELED", "message": "it was cancelled"}}
        if (error := task.exception()) is not None:
            raise error
        return task.result()

    def _begin(self, run_id: str, *, recovered: bool) -> "asyncio.Task[JsonObject]":
        self._tasks[run_id] = task = asyncio.ensure_future(self._run(run_id, recovered=recovered))
        return task

    async def _run(self, run_id: str, *, recovered: bool) -> JsonObject:
        assert self._execute is not None, "the engine was launched"
        assert self._crashed is not None, "the engine was launched"
        record = self.records[run_id]
        if record.result is not None:
            return record.result
        execution = _Execution(self, run_id, recovered=recovered)
        try:
            record.result = await self._execute(execution, record.given)
            if record.state is EngineState.ACTIVE:
                record.state = EngineState.DONE
            return record.result
        except Exception as error:
            record.state = EngineState.BROKEN
            await self._crashed(run_id, record.given, error)
            raise
        finally:
            await execution.close()
