"""What an A2A agent may answer with, at once or in a stream, in the terms of A2A 1.0."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from interhub.adapters.content import Artifact, Message
from interhub.agent_cards import JsonObject, empty_object


class TaskState(StrEnum):
    """Where a task stands (A2A 1.0, section 4.1.3)."""

    UNSPECIFIED = "TASK_STATE_UNSPECIFIED"
    SUBMITTED = "TASK_STATE_SUBMITTED"
    WORKING = "TASK_STATE_WORKING"
    COMPLETED = "TASK_STATE_COMPLETED"
    FAILED = "TASK_STATE_FAILED"
    CANCELED = "TASK_STATE_CANCELED"
    REJECTED = "TASK_STATE_REJECTED"
    INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
    AUTH_REQUIRED = "TASK_STATE_AUTH_REQUIRED"

    @property
    def terminal(self) -> bool:
        """Nothing follows."""
        return self in {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED}

    @property
    def interrupted(self) -> bool:
        """Nothing follows before somebody answers."""
        return self in {TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED}

    @property
    def settled(self) -> bool:
        """Nothing follows by itself."""
        return self.terminal or self.interrupted


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """A task's state, and what the agent said with it (A2A 1.0, section 4.1.2)."""

    state: TaskState
    message: Message | None = None
    timestamp: str = ""
    """RFC 3339 in UTC; empty when the agent gave none."""


@dataclass(frozen=True, kw_only=True)
class TaskSnapshot:
    """A whole task (A2A 1.0, section 4.1.1)."""

    task_id: str
    context_id: str
    status: TaskStatus
    artifacts: tuple[Artifact, ...] = ()
    history: tuple[Message, ...] = ()
    metadata: JsonObject = field(default_factory=empty_object)


@dataclass(frozen=True, kw_only=True)
class MessageAnswer:
    """An answer without a task."""

    message: Message


@dataclass(frozen=True, kw_only=True)
class StatusUpdate:
    """A task's state changed (A2A 1.0, section 4.2.1)."""

    task_id: str
    context_id: str
    status: TaskStatus
    metadata: JsonObject = field(default_factory=empty_object)


@dataclass(frozen=True, kw_only=True)
class ArtifactUpdate:
    """A piece of an artifact (A2A 1.0, section 4.2.2)."""

    task_id: str
    context_id: str
    artifact: Artifact
    append: bool = False
    last: bool = False


Event: TypeAlias = TaskSnapshot | MessageAnswer | StatusUpdate | ArtifactUpdate
"""What an agent answers with, at once or in a stream."""
