"""A run as an A2A task, and its events as the updates of a stream (A2A 1.0, sections 4.1 and 4.2)."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from a2a import types as a2a
from google.protobuf.timestamp_pb2 import Timestamp

from interhub.adapters import Artifact, DataPart, Message, Part, Role, TextPart
from interhub.adapters.content import artifact_from_json, parts_from_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.faces.shapes import step_shape
from interhub.hub.supervisor.run import Event, EventKind, Question, Run, RunState

from .asked import OpenQuestions
from .content import write_artifact, write_message, write_object

ANSWER_ID = "answer"
"""Id of the artifact that holds a run's answer: results are artifacts, not messages (A2A 1.0, section 3.7)."""

AGENT_KEY = "interhub/agent"
STEP_KEY = "interhub/step"
STEPS_KEY = "interhub/steps"
EVENT_KEY = "interhub/event"
SEQUENCE_KEY = "interhub/sequence"
TASK_KEY = "interhub/task"
GENERATION_KEY = "interhub/generation"
QUESTION_KEY = "interhub/question"
SCHEMA_KEY = "interhub/schema"
DIGEST_KEY = "interhub/digest"
APPROVAL_KEY = "interhub/approval"
ANSWER_BY_KEY = "interhub/answerBy"
EXPIRES_KEY = "interhub/expiresAt"
REASON_KEY = "interhub/reason"
TEXT_KEY = "interhub/text"

_STATES: Mapping[RunState, a2a.TaskState] = {
    RunState.SUBMITTED: a2a.TaskState.TASK_STATE_SUBMITTED,
    RunState.WORKING: a2a.TaskState.TASK_STATE_WORKING,
    RunState.INPUT_REQUIRED: a2a.TaskState.TASK_STATE_INPUT_REQUIRED,
    RunState.AUTH_REQUIRED: a2a.TaskState.TASK_STATE_AUTH_REQUIRED,
    RunState.COMPLETED: a2a.TaskState.TASK_STATE_COMPLETED,
    RunState.FAILED: a2a.TaskState.TASK_STATE_FAILED,
    RunState.CANCELED: a2a.TaskState.TASK_STATE_CANCELED,
    RunState.REJECTED: a2a.TaskState.TASK_STATE_REJECTED,
}
_RUN_STATES = {state: run_state for run_state, state in _STATES.items()}

_SNAKE = re.compile(r"_([a-z])")

_SAID = {
    EventKind.RUN_PLANNED: "planned",
    EventKind.RUN_STARTED: "started",
    EventKind.STEP_STARTED: "started",
    EventKind.STEP_ROUTED: "given to {agent}",
    EventKind.STEP_PROGRESS: "",
    EventKind.STEP_COMPLETED: "done",
    EventKind.STEP_FAILED: "failed",
    EventKind.STEP_CANCELED: "canceled",
    EventKind.STEP_DECIDED: "{why}",
    EventKind.STEP_WAITING: "waits until {until}",
    EventKind.MEMORY_WRITTEN: "remembered something",
    EventKind.RUN_PAUSED: "paused by {by}",
    EventKind.RUN_RESUMED: "resumed by {by}",
    EventKind.QUESTION_ANSWERED: "the question was answered",
}
"""The events that are told as status updates, and in which words. Ids, logs and the end of a run are told otherwise."""


def run_state_of(state: a2a.TaskState) -> RunState | None:
    """Return the state that a filter asks for; None for any."""
    return _RUN_STATES.get(state)


def task_of(run: Run, *, history: Sequence[Message] = (), artifacts: bool = True, steps: bool = True) -> a2a.Task:
    """Write a run as a task."""
    return a2a.Task(
        id=run.id,
        context_id=run.context_id,
        status=status_of(run),
        artifacts=[write_artifact(artifact) for artifact in artifacts_of(run)] if artifacts else [],
        history=[
            write_message(message, message_id=f"{run.id}.{position}", task_id=run.id, context_id=run.context_id)
            for position, message in enumerate(history)
        ],
        metadata=write_object(metadata_of(run, steps=steps)),
    )


def metadata_of(run: Run, *, steps: bool = True) -> dict[str, Json]:
    """Return what a task's metadata say of its run."""
    metadata: dict[str, Json] = {GENERATION_KEY: run.generation}
    if run.agent_id:
        metadata[AGENT_KEY] = run.agent_id
    if steps and run.steps:
        metadata[STEPS_KEY] = [_camel(step_shape(step)) for step in run.steps]
    return metadata


def status_of(run: Run) -> a2a.TaskStatus:
    """Write where a run stands; what it asks, or why it failed, is the status's message."""
    status = a2a.TaskStatus(state=_STATES[run.state], timestamp=_timestamp(run.updated_at))
    said = said_of(run)
    if said is not None:
        status.message.CopyFrom(write_message(said, task_id=run.id, context_id=run.context_id))
    return status


def said_of(run: Run) -> Message | None:
    """Return what is said with where a run stands: what it asks, or why it failed."""
    if run.state.interrupted and run.questions:
        return question_message(run.questions[0])
    if run.error is None:
        return None
    return Message(
        role=Role.AGENT,
        parts=(TextPart(text=run.error.message),),
        message_id=f"{run.id}.error",
        metadata={REASON_KEY: run.error.reason, **({STEP_KEY: run.error.step} if run.error.step else {})},
    )


def question_message(question: Question) -> Message:
    """Return what is asked as the agent's message; its metadata says who asks, and the schema of the answer."""
    metadata: dict[str, Json] = {QUESTION_KEY: question.id, STEP_KEY: question.step, AGENT_KEY: question.agent_id}
    if question.digest:
        metadata[DIGEST_KEY] = question.digest
    if question.approval:
        metadata[APPROVAL_KEY] = True
    if question.answer_by:
        metadata[ANSWER_BY_KEY] = list(question.answer_by)
    if question.expires_at is not None:
        metadata[EXPIRES_KEY] = question.expires_at.isoformat()
    if question.schema is not None:
        metadata[SCHEMA_KEY] = question.schema
    return Message(role=Role.AGENT, parts=question.parts, message_id=question.id, metadata=metadata)


def answer_message(run: Run) -> a2a.Message:
    """Write the answer of a run as a message."""
    return write_message(answer_of(run), context_id=run.context_id)


def answer_of(run: Run) -> Message:
    """Return the answer of a run as a message; its metadata names the task, which may be asked for all the same."""
    metadata: dict[str, Json] = {TASK_KEY: run.id, GENERATION_KEY: run.generation}
    if run.agent_id:
        metadata[AGENT_KEY] = run.agent_id
    return Message(role=Role.AGENT, parts=run.parts, message_id=f"{run.id}.answer", metadata=metadata)


def artifacts_of(run: Run) -> list[Artifact]:
    """Return what a run has made, its answer last; an answer that is one of the artifacts is not repeated."""
    artifacts = list(run.artifacts)
    answer: list[Part] = list(run.parts)
    shown = any(isinstance(part, DataPart) and part.data == run.structured for part in answer)
    if run.structured is not None and not shown:
        answer.append(DataPart(data=run.structured, media_type="application/json"))
    known = [list(artifact.parts) for artifact in artifacts]
    everything = [part for parts in known for part in parts]
    if answer and answer not in known and answer != everything:
        artifacts.append(Artifact(artifact_id=ANSWER_ID, name="answer", parts=tuple(answer)))
    return artifacts


def final_update(run: Run) -> a2a.TaskStatusUpdateEvent:
    """Write the last update of a run that has ended."""
    return a2a.TaskStatusUpdateEvent(
        task_id=run.id,
        context_id=run.context_id,
        status=status_of(run),
        metadata=write_object({GENERATION_KEY: run.generation, SEQUENCE_KEY: run.generation}),
    )


def question_update(
    run: Run, event: Event, question: Question, state: RunState, agent_id: str = ""
) -> a2a.TaskStatusUpdateEvent:
    """Write an event of a run that waits for a person, who is asked the question; `agent_id` does the event's step."""
    asked = write_message(question_message(question), task_id=run.id, context_id=run.context_id)
    return a2a.TaskStatusUpdateEvent(
        task_id=run.id,
        context_id=run.context_id,
        status=a2a.TaskStatus(state=_STATES[state], timestamp=_timestamp(event.at), message=asked),
        metadata=write_object({**_metadata(event, agent_id or question.agent_id), GENERATION_KEY: event.seq}),
    )


def artifact_update(run: Run, artifact: Artifact) -> a2a.TaskArtifactUpdateEvent:
    """Write a whole artifact as an update."""
    return a2a.TaskArtifactUpdateEvent(
        task_id=run.id, context_id=run.context_id, artifact=write_artifact(artifact), last_chunk=True
    )


def update_of(
    run: Run, event: Event, agent_id: str, asked: OpenQuestions
) -> a2a.TaskStatusUpdateEvent | a2a.TaskArtifactUpdateEvent | None:
    """Write an event of a run that goes on as an update of its stream; None for one that tells a client nothing.

    `run` is the run as it was when the stream began, `agent_id` the agent that does the event's step. Where something
    is `asked`, that is what the task's state and message say, and the event is in the metadata.
    """
    if event.kind is EventKind.STEP_ARTIFACT:
        return _chunk(run, event, agent_id)
    said = _SAID.get(event.kind)
    if said is None:
        return None
    told = {name: _text(event.payload, name) for name in ("why", "until", "event", "by")}
    if event.kind is EventKind.STEP_WAITING and told["event"]:
        said = "waits for the event {event} until {until}"
    text = _words(event, said.format(**told, agent=agent_id or "an agent"))
    if asked.first is not None:
        update = question_update(run, event, asked.first, asked.state, agent_id)
        if text:
            update.metadata.update({TEXT_KEY: text})
        return update
    status = a2a.TaskStatus(state=a2a.TaskState.TASK_STATE_WORKING, timestamp=_timestamp(event.at))
    if text:
        message = Message(role=Role.AGENT, parts=(TextPart(text=text),), message_id=f"{run.id}.{event.seq}")
        status.message.CopyFrom(write_message(message, task_id=run.id, context_id=run.context_id))
    return a2a.TaskStatusUpdateEvent(
        task_id=run.id, context_id=run.context_id, status=status, metadata=write_object(_metadata(event, agent_id))
    )


def is_answer(event: Event, message_id: str) -> bool:
    """Return whether an event says that a message was taken as the answer to a question."""
    return event.kind is EventKind.QUESTION_ANSWERED and _text(event.payload, "message_id") == message_id


def agent_of(event: Event) -> str:
    """Return the agent that an event names; empty for none."""
    return _text(event.payload, "agent")


def history_of(run: Run, events: Sequence[Event]) -> list[Message]:
    """Return the dialogue of a run: the goal, then what was asked and answered; what is asked now is in the status."""
    open_questions = {question.id for question in run.questions}
    history = [run.goal]
    for event in events:
        match event.kind:
            case EventKind.QUESTION_ASKED:
                question_id = _text(event.payload, "question")
                if question_id in open_questions:
                    continue
                role = Role.AGENT
                message_id = question_id
            case EventKind.QUESTION_ANSWERED:
                role = Role.USER
                message_id = _text(event.payload, "message_id")
            case _:
                continue
        parts = _parts(event.payload)
        if parts:
            history.append(Message(role=role, parts=parts, message_id=message_id or f"{run.id}.{event.seq}"))
    return history


def _chunk(run: Run, event: Event, agent_id: str) -> a2a.TaskArtifactUpdateEvent | None:
    shaped = event.payload.get("artifact")
    if not isinstance(shaped, Mapping):
        return None
    update = a2a.TaskArtifactUpdateEvent(
        task_id=run.id,
        context_id=run.context_id,
        artifact=write_artifact(artifact_from_json(shaped)),
        append=event.payload.get("append") is True,
        last_chunk=event.payload.get("last") is not False,
    )
    update.metadata.CopyFrom(write_object(_metadata(event, agent_id)))
    return update


def _words(event: Event, said: str) -> str:
    text = _text(event.payload, "text") if event.kind is EventKind.STEP_PROGRESS else said
    title = _text(event.payload, "title") or event.step
    return f"{title}: {text}" if title and text else text


def _metadata(event: Event, agent_id: str) -> JsonObject:
    metadata: dict[str, Json] = {EVENT_KEY: event.kind.value, SEQUENCE_KEY: event.seq}
    if event.step:
        metadata[STEP_KEY] = event.step
    if agent_id:
        metadata[AGENT_KEY] = agent_id
    for name in ("done", "total"):
        value = event.payload.get(name)
        if isinstance(value, (int, float)):
            metadata[f"interhub/{name}"] = value
    return metadata


def _camel(shape: JsonObject) -> JsonObject:
    """Return a shape with its names in camelCase, as everything is that goes over A2A (A2A 1.0, section 5.5)."""
    return {_SNAKE.sub(lambda found: found[1].upper(), name): value for name, value in shape.items()}


def _text(payload: JsonObject, name: str) -> str:
    value = payload.get(name)
    return value if isinstance(value, str) else ""


def _parts(payload: JsonObject) -> tuple[Part, ...]:
    try:
        return parts_from_json(payload.get("parts"))
    except ValueError:
        return ()


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
