"""A supervisor whose runs do what their goal says: the twin that faces are tested against.

The goal's first word is the script: `echo X` answers X; `count N` reports progress and makes an artifact of N chunks;
`ask` asks a question and answers what it was told; `login` asks for authentication; `hold` works until it is cancelled
or `release` is called; `reply X` answers X as a message; `fail` fails. Whatever else it is, is echoed. Nothing is kept
but in memory.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import uuid4

import anyio
from anyio.abc import TaskGroup

from interhub.adapters import Artifact, DataPart, Part, Principal, TextPart, text_of
from interhub.adapters.content import artifact_to_json, part_to_json
from interhub.agent_cards import AgentCard, Binding, Endpoint, Json, JsonObject
from interhub.hub.errors import Mistake, PlanInvalid, QuestionNotFound, RunEnded, RunNotFound
from interhub.hub.supervisor.run import (
    Answer,
    Assignment,
    Event,
    EventKind,
    Question,
    Run,
    RunError,
    RunFilter,
    RunPage,
    RunState,
    StepView,
)

STEP = "work"


@dataclass
class _Record:
    run: Run
    assignment: Assignment
    events: list[Event] = field(default_factory=list[Event])
    changed: anyio.Event = field(default_factory=anyio.Event)
    answer: Answer | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    released: anyio.Event = field(default_factory=anyio.Event)


class SupervisorTwin:
    """Runs by script."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._records: dict[str, _Record] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self.assignments: list[Assignment] = []
        """Every one that was submitted, in order."""
        self.read = 0
        """How many events were asked for one by one, not watched."""
        self._waiters = 0
        self._idle = anyio.Event()

    async def submit(self, assignment: Assignment) -> Run:
        if assignment.workflow is not None and "steps" not in assignment.workflow:
            raise PlanInvalid("the workflow", [Mistake("steps", "is missing")])
        key = (assignment.principal.key, assignment.idempotency_key)
        if assignment.idempotency_key and key in self._keys:
            return self._records[self._keys[key]].run
        self.assignments.append(assignment)
        now = datetime.now(UTC)
        run = Run(
            id=str(uuid4()),
            tenant=assignment.principal.tenant,
            subject=assignment.principal.subject,
            context_id=assignment.context_id or str(uuid4()),
            goal=assignment.goal,
            agent_id=assignment.agent_id,
            state=RunState.SUBMITTED,
            created_at=now,
            updated_at=now,
        )
        record = _Record(run=run, assignment=assignment)
        self._records[run.id] = record
        if assignment.idempotency_key:
            self._keys[key] = run.id
        self._tell(record, EventKind.RUN_SUBMITTED)
        self._tasks.start_soon(self._perform, record)
        return record.run

    async def get(self, principal: Principal, run_id: str) -> Run:
        return self._record(principal, run_id).run

    async def list(
        self, principal: Principal, *, state: RunState | None, context_id: str | None, limit: int, before: str | None
    ) -> tuple[Run, ...]:
        mine = [record.run for record in self._records.values() if _of(principal, record.run)]
        mine.reverse()
        if before:
            ids = [run.id for run in mine]
            mine = mine[ids.index(before) + 1 :] if before in ids else []
        found = [
            run
            for run in mine
            if (state is None or run.state is state) and (context_id is None or run.context_id == context_id)
        ]
        return tuple(found[:limit])

    async def page(
        self, principal: Principal, wanted: RunFilter, *, after: tuple[datetime, str] | None, limit: int
    ) -> RunPage:
        mine = [record.run for record in self._records.values() if _of(principal, record.run)]
        found = [
            run
            for run in sorted(mine, key=lambda each: (each.updated_at, each.id), reverse=True)
            if (wanted.state is None or run.state is wanted.state)
            and (not wanted.context_id or run.context_id == wanted.context_id)
            and (not wanted.agent_id or run.agent_id == wanted.agent_id)
            and (wanted.changed_since is None or run.updated_at >= wanted.changed_since)
        ]
        rest = [run for run in found if after is None or (run.updated_at, run.id) < after]
        return RunPage(runs=tuple(rest[:limit]), total=len(found), more=len(rest) > limit)

    async def events(self, principal: Principal, run_id: str, *, after: int, limit: int) -> tuple[Event, ...]:
        found = tuple(self._record(principal, run_id).events[after : after + limit])
        self.read += len(found)
        return found

    async def dialogue(self, principal: Principal, run_id: str, *, upto: int | None) -> tuple[Event, ...]:
        events = self._record(principal, run_id).events[:upto]
        return tuple(event for event in events if event.kind.value.startswith("question_"))

    async def watch(self, principal: Principal, run_id: str, *, after: int) -> AsyncIterator[Event]:
        record = self._record(principal, run_id)
        while True:
            changed = record.changed
            for event in record.events[after:]:
                after = event.seq
                yield event
            if record.run.state.ended and after == len(record.events):
                return
            if record.changed is changed:
                await changed.wait()

    async def wait(self, principal: Principal, run_id: str, *, timeout_s: float | None) -> Run:
        record = self._record(principal, run_id)
        self._waiters += 1
        try:
            with anyio.move_on_after(timeout_s):
                while not (record.run.state.ended or record.run.state.interrupted):
                    await record.changed.wait()
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._idle.set()
        return record.run

    async def nobody_waits(self) -> None:
        """Return once somebody has waited for a run and nobody does any more."""
        await self._idle.wait()

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        record = self._record(principal, run_id)
        if record.run.state.ended:
            raise RunEnded(run_id, record.run.state.value)
        record.scope.cancel()
        self._end(record, EventKind.RUN_CANCELED, RunState.CANCELED)
        return record.run

    async def answer(self, principal: Principal, run_id: str, answer: Answer, *, question_id: str) -> Run:
        record = self._record(principal, run_id)
        wanted = [one for one in record.run.questions if question_id in ("", one.id)]
        if len(wanted) != 1:
            raise QuestionNotFound(run_id, question_id)
        record.answer = answer
        payload: dict[str, Json] = {
            "question": wanted[0].id,
            "accepted": answer.accepted,
            "message_id": answer.message_id,
            "parts": [part_to_json(part) for part in answer.parts],
        }
        left = tuple(one for one in record.run.questions if one.id != wanted[0].id)
        record.run = replace(record.run, questions=left, state=record.run.state if left else RunState.WORKING)
        self._tell(record, EventKind.QUESTION_ANSWERED, wanted[0].step, payload)
        return record.run

    async def agent_of_document(
        self, tenant: str, document: JsonObject, source: str
    ) -> tuple[str, AgentCard, Endpoint]:
        name = document.get("name")
        if not isinstance(name, str):
            raise PlanInvalid(source, [Mistake("name", "is missing")])
        return "workflow", AgentCard(name=name), Endpoint(binding=Binding.WORKFLOW, options={"document": document})

    def runs(self) -> Sequence[Run]:
        """Return every run as it stands."""
        return [record.run for record in self._records.values()]

    def release(self, run_id: str) -> None:
        """Let a run that holds go on to its end."""
        self._records[run_id].released.set()

    def ask(self, run_id: str, step: str) -> Question:
        """Have a step of a run that holds ask something."""
        return self._question(self._records[run_id], step, auth=False)

    def progress(self, run_id: str, step: str, text: str) -> None:
        """Have a step of a run that holds get on."""
        self._tell(self._records[run_id], EventKind.STEP_PROGRESS, step, {"agent": "twin", "text": text})

    # Scripts

    async def _perform(self, record: _Record) -> None:
        with record.scope:
            goal = text_of(record.assignment.goal.parts)
            script, _, rest = goal.partition(" ")
            record.run = replace(record.run, state=RunState.WORKING)
            self._tell(record, EventKind.RUN_STARTED)
            self._step(record, RunState.WORKING)
            self._tell(record, EventKind.STEP_STARTED, STEP, {"agent": "twin", "capability": script})
            match script:
                case "count":
                    self._count(record, int(rest))
                case "ask" | "login":
                    await self._ask(record, auth=script == "login")
                    return
                case "hold":
                    await record.released.wait()
                    self._complete(record, (TextPart(text="released"),))
                case "reply":
                    record.run = replace(record.run, as_message=True)
                    self._complete(record, (TextPart(text=rest),))
                case "fail":
                    record.run = replace(record.run, error=RunError(reason="AGENT_REFUSED", message=rest, step=STEP))
                    self._end(record, EventKind.RUN_FAILED, RunState.FAILED)
                case _:
                    data = [part for part in record.assignment.goal.parts if isinstance(part, DataPart)]
                    self._complete(record, (TextPart(text=rest if script == "echo" else goal), *data))

    def _count(self, record: _Record, chunks: int) -> None:
        for number in range(chunks):
            done: dict[str, Json] = {"agent": "twin", "text": f"counted {number}", "done": number, "total": chunks}
            self._tell(record, EventKind.STEP_PROGRESS, STEP, done)
            chunk = Artifact(artifact_id="numbers", name="numbers", parts=(TextPart(text=f"{number} "),))
            payload: dict[str, Json] = {
                "artifact": artifact_to_json(chunk),
                "append": number > 0,
                "last": number == chunks - 1,
            }
            self._tell(record, EventKind.STEP_ARTIFACT, STEP, payload)
        parts: tuple[Part, ...] = tuple(TextPart(text=f"{number} ") for number in range(chunks))
        whole = Artifact(artifact_id="numbers", name="numbers", parts=parts)
        record.run = replace(record.run, artifacts=(whole,))
        self._complete(record, (TextPart(text=f"counted to {chunks}"),))

    async def _ask(self, record: _Record, *, auth: bool) -> None:
        self._question(record, STEP, auth=auth)
        while record.answer is None:
            await record.changed.wait()
        said = record.answer
        self._complete(record, said.parts if said.accepted else (TextPart(text="no colour then"),))

    def _question(self, record: _Record, step: str, *, auth: bool) -> Question:
        question = Question(
            id=str(uuid4()),
            run_id=record.run.id,
            step=step,
            agent_id="twin",
            parts=(TextPart(text="Which colour?"),),
            schema=None if auth else {"type": "object", "properties": {"colour": {"type": "string"}}},
            auth=auth,
            asked_at=datetime.now(UTC),
        )
        state = RunState.AUTH_REQUIRED if auth else RunState.INPUT_REQUIRED
        record.run = replace(record.run, state=state, questions=(*record.run.questions, question))
        payload: dict[str, Json] = {"question": question.id, "parts": [part_to_json(part) for part in question.parts]}
        self._tell(record, EventKind.QUESTION_ASKED, step, payload)
        return question

    def _complete(self, record: _Record, parts: tuple[Part, ...]) -> None:
        record.run = replace(record.run, parts=parts)
        self._step(record, RunState.COMPLETED)
        self._tell(record, EventKind.STEP_COMPLETED, STEP, {"agent": "twin"})
        self._end(record, EventKind.RUN_COMPLETED, RunState.COMPLETED)

    def _step(self, record: _Record, state: RunState) -> None:
        view = StepView(path=STEP, agent_id="twin", capability="work", state=state, attempts=1)
        record.run = replace(record.run, steps=(view,))

    def _end(self, record: _Record, kind: EventKind, state: RunState) -> None:
        now = datetime.now(UTC)
        record.run = replace(record.run, state=state, ended_at=now, updated_at=now, questions=())
        self._tell(record, kind)

    def _tell(self, record: _Record, kind: EventKind, step: str = "", payload: JsonObject | None = None) -> None:
        event = Event(
            run_id=record.run.id,
            seq=len(record.events) + 1,
            step=step,
            attempt=1,
            kind=kind,
            n=len(record.events),
            at=datetime.now(UTC),
            payload=payload or {},
        )
        record.events.append(event)
        record.run = replace(record.run, generation=event.seq, updated_at=event.at)
        changed, record.changed = record.changed, anyio.Event()
        changed.set()

    def _record(self, principal: Principal, run_id: str) -> _Record:
        record = self._records.get(run_id)
        if record is None or not _of(principal, record.run):
            raise RunNotFound(run_id)
        return record


@asynccontextmanager
async def supervisor_twin() -> AsyncGenerator[SupervisorTwin]:
    """Open a twin; its runs end with it."""
    async with anyio.create_task_group() as tasks:
        yield SupervisorTwin(tasks)
        tasks.cancel_scope.cancel()


def _of(principal: Principal, run: Run) -> bool:
    return (run.tenant, run.subject) == (principal.tenant, principal.subject)
