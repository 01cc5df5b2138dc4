"""What we know of one task while its events come in: its state, its artifacts merged, and how it ended."""

from collections.abc import Iterable

import orjson

from interhub.adapters.base import ArtifactChunk, Progress, TaskBound, Update
from interhub.adapters.content import (
    Artifact,
    DataPart,
    Message,
    Part,
    RawPart,
    Role,
    TextPart,
    UrlPart,
    artifact_to_json,
    message_to_json,
    text_of,
)
from interhub.adapters.errors import AnswerTooLarge
from interhub.agent_cards import Json, JsonObject

from .events import ArtifactUpdate, Event, MessageAnswer, StatusUpdate, TaskSnapshot, TaskState, TaskStatus
from .usage import UsageCount


class TaskView:
    """One call as seen through the events that came in: a task, or a message that answered at once."""

    def __init__(self, where: str, *, max_bytes: int, answered: str = "") -> None:
        """`max_bytes` is what all artifacts of the task may hold together.

        `answered` marks the question that has been answered (see `question_mark`): a task that still shows it has not
        come to the answer yet.
        """
        self._where = where
        self._max_bytes = max_bytes
        self._answered = answered
        self._artifacts: dict[str, Artifact] = {}
        self._sizes: dict[str, int] = {}
        self.task_id = ""
        self.context_id = ""
        self.status = TaskStatus(state=TaskState.UNSPECIFIED)
        self.answer: Message | None = None
        self.history: tuple[Message, ...] = ()
        self.metadata: JsonObject = {}
        self.usage = UsageCount()
        self.told_whole = False
        """The last that came was the whole task: nothing of it can have passed us by."""
        self.whole = True
        """False when something may have been missed, so that the task must be asked for at its end."""

    @property
    def settled(self) -> bool:
        """Nothing more follows by itself."""
        return self.answer is not None or self.status.state.settled

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The artifacts, in the order in which they were begun."""
        return tuple(self._artifacts.values())

    def take(self, event: Event) -> list[Update]:
        """Take an event and return what there is to report of it.

        Raises:
            AnswerTooLarge: the artifacts hold more than they may.
        """
        self.told_whole = isinstance(event, TaskSnapshot)
        match event:
            case MessageAnswer():
                if self.task_id:  # a message inside a task's stream: 0.3 servers send it as news, not as the answer
                    text = text_of(event.message.parts)
                    return [Progress(text=text)] if text else []
                self.answer = event.message
                self.usage.take("answer", event.message.metadata)
                self.context_id = event.message.context_id or self.context_id
                return []
            case TaskSnapshot():
                self.whole = True
                updates = self._bind(event.task_id, event.context_id, ended=event.status.state.terminal)
                self.history = event.history or self.history
                self.metadata = event.metadata or self.metadata
                self.usage.take_task(event.metadata)
                for said in event.history:
                    if said.role is Role.AGENT:
                        self.usage.take(f"message {said.message_id}", said.metadata)
                for artifact in event.artifacts:
                    if self._artifacts.get(artifact.artifact_id) != artifact:
                        self._keep(artifact, 0)
                        updates.append(ArtifactChunk(artifact=artifact))
                return updates + self._stand(event.status)
            case StatusUpdate():
                self.usage.take_task(event.metadata)
                return [*self._bind(event.task_id, event.context_id), *self._stand(event.status)]
            case ArtifactUpdate():
                updates = self._bind(event.task_id, event.context_id)
                self._merge(event)
                updates.append(ArtifactChunk(artifact=event.artifact, append=event.append, last=event.last))
                return updates

    def words(self) -> tuple[Part, ...]:
        """Return what the agent said with the task's state."""
        return self.status.message.parts if self.status.message is not None else ()

    def last_words(self) -> tuple[Part, ...]:
        """Return the agent's last message in the history."""
        for message in reversed(self.history):
            if message.role is Role.AGENT:
                return message.parts
        return ()

    def to_json(self) -> JsonObject:
        """Write the answer in A2A 1.0: `{"task": ...}` or `{"message": ...}`."""
        if self.answer is not None:
            return {"message": message_to_json(self.answer)}
        status: dict[str, Json] = {"state": self.status.state.value}
        if self.status.message is not None:
            status["message"] = message_to_json(self.status.message)
        if self.status.timestamp:
            status["timestamp"] = self.status.timestamp
        task: dict[str, Json] = {"id": self.task_id, "contextId": self.context_id, "status": status}
        if self._artifacts:
            task["artifacts"] = [artifact_to_json(artifact) for artifact in self.artifacts]
        if self.history:
            task["history"] = [message_to_json(message) for message in self.history]
        if self.metadata:
            task["metadata"] = self.metadata
        return {"task": task}

    def _bind(self, task_id: str, context_id: str, *, ended: bool = False) -> list[Update]:
        self.context_id = context_id or self.context_id
        if not task_id or task_id == self.task_id:
            return []
        self.task_id = task_id
        return [TaskBound(remote_task=task_id, remote_context=self.context_id, ended=ended)]

    def _stand(self, status: TaskStatus) -> list[Update]:
        if self._answered and status.state.interrupted and question_mark(status) == self._answered:
            status = TaskStatus(state=TaskState.UNSPECIFIED)
        before, self.status = self.status, status
        if status.message is not None:
            self.usage.take(f"message {status.message.message_id}", status.message.metadata)
        if status.state.settled or status.message is None or status.message == before.message:
            return []
        text = text_of(status.message.parts)
        return [Progress(text=text)] if text else []

    def _merge(self, event: ArtifactUpdate) -> None:
        """Merge a chunk (A2A 1.0, section 4.2.2): with `append` its parts follow, else it replaces."""
        begun = self._artifacts.get(event.artifact.artifact_id)
        if not event.append or begun is None:
            if event.append:
                self.whole = False
            self._keep(event.artifact, 0)
            return
        merged = Artifact(
            artifact_id=begun.artifact_id,
            parts=begun.parts + event.artifact.parts,
            name=event.artifact.name or begun.name,
            description=event.artifact.description or begun.description,
            metadata={**begun.metadata, **event.artifact.metadata},
            extensions=begun.extensions + tuple(e for e in event.artifact.extensions if e not in begun.extensions),
        )
        self._keep(merged, len(begun.parts))

    def _keep(self, artifact: Artifact, counted: int) -> None:
        """Keep an artifact whose first `counted` parts are already in the books."""
        known = self._sizes.get(artifact.artifact_id, 0) if counted else 0
        self.usage.take(f"artifact {artifact.artifact_id}", artifact.metadata)
        self._artifacts[artifact.artifact_id] = artifact
        self._sizes[artifact.artifact_id] = known + _size(artifact.parts[counted:])
        total = sum(self._sizes.values())
        if total > self._max_bytes:
            raise AnswerTooLarge(self._where, total, self._max_bytes, "the artifacts of its task")


def question_mark(status: TaskStatus) -> str:
    """Return what tells one question of a task from the next: its message's id, else its time, else its words."""
    if status.message is not None and status.message.message_id:
        return status.message.message_id
    if status.timestamp:
        return status.timestamp
    return text_of(status.message.parts) if status.message is not None else ""


def _size(parts: Iterable[Part]) -> int:
    return sum(_part_size(part) for part in parts)


def _part_size(part: Part) -> int:
    match part:
        case TextPart():
            return len(part.text.encode())
        case RawPart():
            return len(part.raw)
        case UrlPart():
            return len(part.url)
        case DataPart():
            return len(orjson.dumps(part.data, option=orjson.OPT_NON_STR_KEYS))
