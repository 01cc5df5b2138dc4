"""What pushes say: stream responses to those who registered over 1.0, the bare task to those of 0.3."""

from collections.abc import Sequence
from dataclasses import replace

import orjson
from a2a import types as a2a
from a2a.compat.v0_3.conversions import to_compat_task
from google.protobuf.json_format import MessageToDict

from interhub.adapters import Principal
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Event, EventKind, Question, Run

from .asked import OpenQuestions, asked_by
from .content import write_object
from .task import agent_of, artifact_update, artifacts_of, final_update, question_update, task_of, update_of

MAX_BODY_BYTES = 1024 * 1024
"""A larger body is not sent; its receiver is told the task's state instead, and may ask for the rest."""

OMITTED_KEY = "interhub/omitted"
"""In the metadata of a task: its artifacts were too large to be pushed."""

_ENDS = frozenset({EventKind.RUN_COMPLETED, EventKind.RUN_FAILED, EventKind.RUN_CANCELED})
_TOLD_TO_OLD = _ENDS | {
    EventKind.RUN_STARTED,
    EventKind.STEP_ARTIFACT,
    EventKind.QUESTION_ASKED,
    EventKind.QUESTION_ANSWERED,
}
"""The events that change what the bare task says: its state or its artifacts."""


class A2aBodies:
    """Writes the bodies of pushes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def story(self, principal: Principal, run: Run, version: str) -> "A2aStory":
        """Begin to tell a run in a version of A2A."""
        return A2aStory(self._hub, principal, run, version)


class A2aStory:
    """What is told of one run to one webhook."""

    def __init__(self, hub: Hub, principal: Principal, run: Run, version: str) -> None:
        self._hub = hub
        self._principal = principal
        self._run = run
        self._old = version == "0.3"
        self._agents = {step.path: step.agent_id for step in run.steps}
        # Of a run that was told in part by an earlier process, whole artifacts may be told again at its end.
        self._shown: set[str] = set()
        self._asked: OpenQuestions | None = None

    async def beginning(self, run: Run) -> bytes:
        """Return the task as it stands."""
        self._shown = {artifact.artifact_id for artifact in artifacts_of(run)}
        return self._task(run)

    async def bodies(self, event: Event) -> Sequence[bytes]:
        """Return what is told of an event."""
        if self._asked is None:
            self._asked = await asked_by(self._hub, self._principal, self._run, event.seq - 1)
        question = await self._asked.take(event, self._now)
        if self._old:
            unfinished = event.kind is EventKind.STEP_ARTIFACT and event.payload.get("last") is False
            if question is None and (event.kind not in _TOLD_TO_OLD or unfinished):
                return ()
            return (self._task(_asking(await self._now(), question)),)
        if event.kind in _ENDS:
            now = await self._now()
            missing = [artifact for artifact in artifacts_of(now) if artifact.artifact_id not in self._shown]
            updates = [a2a.StreamResponse(artifact_update=artifact_update(now, artifact)) for artifact in missing]
            return [
                *[self._written(update, now) for update in updates],
                self._written(a2a.StreamResponse(status_update=final_update(now)), now),
            ]
        if question is not None:
            asking = a2a.StreamResponse(status_update=question_update(self._run, event, question, self._asked.state))
            return (self._written(asking, _asking(await self._now(), question)),)
        agent_id = self._agents[event.step] = agent_of(event) or self._agents.get(event.step, "")
        match update_of(self._run, event, agent_id, self._asked):
            case a2a.TaskArtifactUpdateEvent() as update:
                self._shown.add(update.artifact.artifact_id)
                return (self._written(a2a.StreamResponse(artifact_update=update), self._run),)
            case a2a.TaskStatusUpdateEvent() as update:
                return (self._written(a2a.StreamResponse(status_update=update), self._run),)
            case _:
                return ()

    async def _now(self) -> Run:
        return await self._hub.run(self._principal, self._run.id)

    def _task(self, run: Run) -> bytes:
        task = task_of(run)
        body = self._write_task(task)
        return body if len(body) <= MAX_BODY_BYTES else self._write_task(_slim(run))

    def _write_task(self, task: a2a.Task) -> bytes:
        if self._old:
            return orjson.dumps(to_compat_task(task).model_dump(mode="json", by_alias=True, exclude_none=True))
        return _json(a2a.StreamResponse(task=task))

    def _written(self, update: a2a.StreamResponse, run: Run) -> bytes:
        body = _json(update)
        return body if len(body) <= MAX_BODY_BYTES else _json(a2a.StreamResponse(task=_slim(run)))


def _asking(run: Run, question: Question | None) -> Run:
    """Return a run as one that asks the question first, where it asks that at all."""
    if question is None or all(one.id != question.id for one in run.questions):
        return run
    return replace(run, questions=(question, *(other for other in run.questions if other.id != question.id)))


def _slim(run: Run) -> a2a.Task:
    task = task_of(run, artifacts=False, steps=False)
    task.metadata.MergeFrom(write_object({OMITTED_KEY: True}))
    return task


def _json(update: a2a.StreamResponse) -> bytes:
    return orjson.dumps(MessageToDict(update))
