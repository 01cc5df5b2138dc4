"""Reads what real agents answer: A2A 1.0, A2A 0.3, and the ways in which servers bend the two.

Each leniency is a named rule, and each is logged once for a connection, so that an operator can tell the agent's owner.
What a rule puts right is written in A2A 1.0 afterwards; nothing else in the adapter knows that it was ever different.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum

import structlog

from interhub.adapters.content import Artifact, DataPart, Message, Part, RawPart, Role, TextPart, UrlPart
from interhub.adapters.errors import ProtocolViolation
from interhub.agent_cards import Json, JsonObject

from .events import ArtifactUpdate, Event, MessageAnswer, StatusUpdate, TaskSnapshot, TaskState, TaskStatus
from .wire import WireVersion

_log = structlog.get_logger(__name__)


class Leniency(StrEnum):
    """Something that the protocol does not allow, and that we read all the same."""

    BARE_EVENT = "bare_event"
    """An answer or event without its wrapper member (`task`, `statusUpdate`, ...), as in 0.3 (langgraph's server)."""
    LEGACY_ENUM = "legacy_enum"
    """A state or role as 0.3 or nobody wrote it: `input-required`, `user`, `TASK_STATE_CANCELLED`."""
    LEGACY_PART = "legacy_part"
    """A part in the nested form of 0.3."""
    SNAKE_CASE = "snake_case"
    """A field name as in the protobuf file: `task_id`."""
    NAIVE_TIMESTAMP = "naive_timestamp"
    """A time without a zone is taken for UTC (fasta2a's server)."""
    BAD_TIMESTAMP = "bad_timestamp"
    """A time that is none is left out."""
    UNKNOWN_STATE = "unknown_state"
    """A state that we do not know, or none: the task is taken to be still running."""
    MISSING_ROLE = "missing_role"
    """A message without a role is the agent's."""
    MISSING_ARTIFACT_ID = "missing_artifact_id"
    """An artifact without an id gets its name, or its place, for one."""
    BARE_TEXT = "bare_text"
    """A string where a part or a message should be."""
    UNKNOWN_PART = "unknown_part"
    """A part of no kind that we know is kept as data."""
    LOOSE_BASE64 = "loose_base64"
    """Base64 without padding, or in the URL-safe alphabet."""
    EMPTY_EVENT = "empty_event"
    """An event that says nothing we know is passed over; the task is asked for at the end."""
    NOT_A_STREAM = "not_a_stream"
    """A stream was asked for, and one answer came."""
    UNENDED_EVENT = "unended_event"
    """The stream ended without the blank line that ends its last event."""
    GAP = "gap"
    """An artifact was continued that we never saw begin; the task is asked for at the end."""
    ANSWER_IN_HISTORY = "answer_in_history"
    """A task completed with neither artifact nor message: its words are the agent's last message in the history."""
    QUESTION_IN_ARTIFACT = "question_in_artifact"
    """A task needs an answer and has no message: what it asks is its last artifact (langgraph's server)."""
    UNTOLD_RESULT = "untold_result"
    """A stream ended well without the result, which the task has when it is asked for (fasta2a's server)."""
    MISPLACED_REDIRECT = "misplaced_redirect"
    """The interface's address redirects to another one of the same origin."""


_USUAL_IN_03 = frozenset({Leniency.BARE_EVENT, Leniency.LEGACY_ENUM, Leniency.LEGACY_PART})


class TolerantReader:
    """Reads one agent's answers and events."""

    def __init__(self, where: str, version: WireVersion) -> None:
        """`where` names the agent in logs and errors."""
        self._where = where
        self.version = version
        self._noted: set[Leniency] = set()

    @property
    def noted(self) -> frozenset[Leniency]:
        """The rules that this agent needed until now."""
        return frozenset(self._noted)

    def note(self, rule: Leniency, **facts: object) -> None:
        """Log that a rule was needed, the first time."""
        if rule in self._noted or (self.version is WireVersion.V03 and rule in _USUAL_IN_03):
            return
        self._noted.add(rule)
        _log.info("a2a_leniency", agent=self._where, rule=rule.value, version=self.version.value, **facts)

    def answer(self, payload: Json) -> TaskSnapshot | MessageAnswer:
        """Read the answer to a message (A2A 1.0, section 3.2.3).

        Raises:
            ProtocolViolation: it is neither a task nor a message.
        """
        event = self.event(payload)
        if isinstance(event, TaskSnapshot | MessageAnswer):
            return event
        raise ProtocolViolation(
            self._where, f"a message was answered with {_outline(payload)}, not a task or a message"
        )

    def task(self, payload: Json) -> TaskSnapshot:
        """Read a task.

        Raises:
            ProtocolViolation: it is none.
        """
        if isinstance(payload, Mapping) and "task" not in payload and self._get(payload, "id") is not None:
            return self._snapshot(payload)
        event = self.event(payload)
        if isinstance(event, TaskSnapshot):
            return event
        raise ProtocolViolation(self._where, f"a task was asked for, and the answer was {_outline(payload)}")

    def event(self, payload: Json) -> Event | None:
        """Read an event of a stream (A2A 1.0, section 3.2.3); None for one that says nothing we know."""
        if not isinstance(payload, Mapping):
            self.note(Leniency.EMPTY_EVENT, found=_outline(payload))
            return None
        for member in ("task", "statusUpdate", "artifactUpdate", "message", "msg"):
            body = self._get(payload, member)
            if isinstance(body, Mapping) and "kind" not in payload:
                return self._body(member, body)
        kind = payload.get("kind")
        member = _KINDS.get(kind, "") if isinstance(kind, str) else self._guess(payload)
        if not member:
            self.note(Leniency.EMPTY_EVENT, found=_outline(payload))
            return None
        self.note(Leniency.BARE_EVENT, found=member)
        return self._body(member, payload)

    def _guess(self, payload: JsonObject) -> str:
        if self._get(payload, "artifact") is not None:
            return "artifactUpdate"
        if self._get(payload, "status") is not None:
            return "task" if self._get(payload, "id") is not None else "statusUpdate"
        return "message" if self._get(payload, "parts") is not None else ""

    def _body(self, member: str, body: JsonObject) -> Event:
        match member:
            case "task":
                return self._snapshot(body)
            case "statusUpdate":
                return StatusUpdate(
                    task_id=self._text(body, "taskId"),
                    context_id=self._text(body, "contextId"),
                    status=self._status(self._get(body, "status")),
                    metadata=self._object(body, "metadata"),
                )
            case "artifactUpdate":
                return ArtifactUpdate(
                    task_id=self._text(body, "taskId"),
                    context_id=self._text(body, "contextId"),
                    artifact=self._artifact(self._get(body, "artifact"), 0),
                    append=self._get(body, "append") is True,
                    last=self._get(body, "lastChunk") is True,
                )
            case _:
                return MessageAnswer(message=self._message(body))

    def _snapshot(self, body: JsonObject) -> TaskSnapshot:
        task_id = self._text(body, "id")
        if not task_id:
            raise ProtocolViolation(self._where, "a task without an id")
        return TaskSnapshot(
            task_id=task_id,
            context_id=self._text(body, "contextId"),
            status=self._status(self._get(body, "status")),
            artifacts=tuple(self._artifact(each, n) for n, each in enumerate(self._items(body, "artifacts"))),
            history=tuple(self._message(each) for each in self._items(body, "history")),
            metadata=self._object(body, "metadata"),
        )

    def _status(self, shaped: Json) -> TaskStatus:
        if isinstance(shaped, str):
            shaped = {"state": shaped}
        if not isinstance(shaped, Mapping):
            self.note(Leniency.UNKNOWN_STATE, found=_outline(shaped))
            return TaskStatus(state=TaskState.UNSPECIFIED)
        # 0.3's HTTP+JSON calls the message `update` in its protobuf file, `message` in its JSON.
        message = self._get(shaped, "message")
        if message is None:
            message = shaped.get("update")
        return TaskStatus(
            state=self._state(self._get(shaped, "state")),
            message=None if message is None else self._message(message),
            timestamp=self._time(self._get(shaped, "timestamp")),
        )

    def _state(self, value: Json) -> TaskState:
        if isinstance(value, str):
            if value in _STATES:
                return _STATES[value]
            name = value.strip().upper().replace("-", "_").removeprefix("TASK_STATE_")
            name = {"CANCELLED": "CANCELED", "RUNNING": "WORKING"}.get(name, name)
            state = _STATES.get(f"TASK_STATE_{name}")
            if state is not None:
                self.note(Leniency.LEGACY_ENUM, found=value)
                return state
        self.note(Leniency.UNKNOWN_STATE, found=_outline(value))
        return TaskState.UNSPECIFIED

    def _message(self, shaped: Json) -> Message:
        if isinstance(shaped, str):
            self.note(Leniency.BARE_TEXT)
            return Message(role=Role.AGENT, parts=(TextPart(text=shaped),))
        if not isinstance(shaped, Mapping):
            raise ProtocolViolation(self._where, f"a message is an object, not {_outline(shaped)}")
        parts = self._get(shaped, "parts")
        if parts is None:
            parts = shaped.get("content")
        return Message(
            role=self._role(self._get(shaped, "role")),
            parts=self._parts(parts),
            message_id=self._text(shaped, "messageId"),
            context_id=self._text(shaped, "contextId"),
            task_id=self._text(shaped, "taskId"),
            metadata=self._object(shaped, "metadata"),
            extensions=self._texts(shaped, "extensions"),
            reference_task_ids=self._texts(shaped, "referenceTaskIds"),
        )

    def _role(self, value: Json) -> Role:
        match value:
            case "ROLE_AGENT" | "ROLE_USER":
                return Role(value)
            case "agent" | "user" | "assistant":
                self.note(Leniency.LEGACY_ENUM, found=value)
                return Role.USER if value == "user" else Role.AGENT
            case _:
                self.note(Leniency.MISSING_ROLE, found=_outline(value))
                return Role.AGENT

    def _artifact(self, shaped: Json, place: int) -> Artifact:
        if not isinstance(shaped, Mapping):
            raise ProtocolViolation(self._where, f"an artifact is an object, not {_outline(shaped)}")
        name = self._text(shaped, "name")
        artifact_id = self._text(shaped, "artifactId")
        if not artifact_id:
            self.note(Leniency.MISSING_ARTIFACT_ID)
            artifact_id = name or f"artifact-{place}"
        return Artifact(
            artifact_id=artifact_id,
            parts=self._parts(self._get(shaped, "parts")),
            name=name,
            description=self._text(shaped, "description"),
            metadata=self._object(shaped, "metadata"),
            extensions=self._texts(shaped, "extensions"),
        )

    def _parts(self, shaped: Json) -> tuple[Part, ...]:
        if shaped is None:
            return ()
        if isinstance(shaped, str | Mapping):
            shaped = [shaped]
        if not isinstance(shaped, list):
            raise ProtocolViolation(self._where, f"parts are a list, not {_outline(shaped)}")
        return tuple(self._part(each) for each in shaped)

    def _part(self, shaped: Json) -> Part:
        if isinstance(shaped, str):
            self.note(Leniency.BARE_TEXT)
            return TextPart(text=shaped)
        if not isinstance(shaped, Mapping):
            self.note(Leniency.UNKNOWN_PART, found=_outline(shaped))
            return DataPart(data=shaped)
        legacy = "kind" in shaped or "file" in shaped or "type" in shaped
        if legacy:
            self.note(Leniency.LEGACY_PART)
        file = shaped.get("file")
        described = file if isinstance(file, Mapping) else shaped
        metadata = dict(self._object(shaped, "metadata"))
        media_type = self._text(described, "mediaType") or self._text(described, "mimeType")
        filename = self._text(described, "filename") or self._text(described, "name")
        if isinstance(file, Mapping):
            return self._file(file, media_type, filename, metadata)
        text, raw, url = shaped.get("text"), shaped.get("raw"), shaped.get("url")
        if isinstance(text, str):
            return TextPart(text=text, media_type=media_type, filename=filename, metadata=metadata)
        if isinstance(raw, str):
            return RawPart(raw=self._bytes(raw), media_type=media_type, filename=filename, metadata=metadata)
        if isinstance(url, str):
            return UrlPart(url=url, media_type=media_type, filename=filename, metadata=metadata)
        if "data" in shaped:
            data = shaped["data"]
            if self.version is WireVersion.V03 and not legacy and isinstance(data, Mapping) and set(data) == {"data"}:
                data = data["data"]  # 0.3's HTTP+JSON nests data once more
            if metadata.pop("data_part_compat", None) is True and isinstance(data, Mapping) and "value" in data:
                data = data["value"]  # how the SDKs carry what is no object over 0.3
            return DataPart(data=data, media_type=media_type, filename=filename, metadata=metadata)
        self.note(Leniency.UNKNOWN_PART, found=_outline(shaped))
        return DataPart(data=shaped)

    def _file(self, file: JsonObject, media_type: str, filename: str, metadata: JsonObject) -> Part:
        url = file.get("uri") or self._get(file, "fileWithUri")
        if isinstance(url, str) and url:
            return UrlPart(url=url, media_type=media_type, filename=filename, metadata=metadata)
        plain = file.get("bytes")
        if isinstance(plain, str):
            return RawPart(raw=self._bytes(plain), media_type=media_type, filename=filename, metadata=metadata)
        twice = self._get(file, "fileWithBytes")
        if isinstance(twice, str):
            once = self._bytes(twice)
            with suppress(ValueError):  # see a2a_wire: the 0.3 SDK encodes twice
                once = b64decode(once, validate=True)
            return RawPart(raw=once, media_type=media_type, filename=filename, metadata=metadata)
        self.note(Leniency.UNKNOWN_PART, found=_outline(file))
        return DataPart(data=file, metadata=metadata)

    def _bytes(self, encoded: str) -> bytes:
        try:
            return b64decode(encoded, validate=True)
        except binascii.Error:
            pass
        try:
            standard = encoded.replace("-", "+").replace("_", "/").rstrip("=")
            decoded = b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except ValueError as error:  # binascii.Error is one
            raise ProtocolViolation(self._where, f"a file's bytes are not base64: {error}") from error
        self.note(Leniency.LOOSE_BASE64)
        return decoded

    def _time(self, value: Json) -> str:
        if value is None or value == "":
            return ""
        if isinstance(value, str):
            if value.endswith("Z"):
                return value
            try:
                read = datetime.fromisoformat(value)
            except ValueError:
                self.note(Leniency.BAD_TIMESTAMP, found=value)
                return ""
            if read.tzinfo is None:
                self.note(Leniency.NAIVE_TIMESTAMP, found=value)
                read = read.replace(tzinfo=UTC)
            return read.astimezone(UTC).isoformat().replace("+00:00", "Z")
        self.note(Leniency.BAD_TIMESTAMP, found=_outline(value))
        return ""

    def _get(self, shaped: JsonObject, name: str) -> Json:
        if name in shaped:
            return shaped[name]
        snake = _SNAKE.get(name)
        if snake is not None and snake in shaped:
            self.note(Leniency.SNAKE_CASE, found=snake)
            return shaped[snake]
        return None

    def _text(self, shaped: JsonObject, name: str) -> str:
        value = self._get(shaped, name)
        if value is None or isinstance(value, str):
            return value or ""
        raise ProtocolViolation(self._where, f"{name} is {_outline(value)}, not a string")

    def _texts(self, shaped: JsonObject, name: str) -> tuple[str, ...]:
        return tuple(str(item) for item in self._items(shaped, name))

    def _items(self, shaped: JsonObject, name: str) -> list[Json]:
        value = self._get(shaped, name)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        raise ProtocolViolation(self._where, f"{name} is {_outline(value)}, not a list")

    def _object(self, shaped: JsonObject, name: str) -> JsonObject:
        value = self._get(shaped, name)
        if value is None:
            return {}
        if isinstance(value, Mapping):
            return value
        raise ProtocolViolation(self._where, f"{name} is {_outline(value)}, not an object")


def _outline(value: Json) -> str:
    """Name a value's shape without repeating what it says."""
    match value:
        case None:
            return "nothing"
        case str():
            return f"the string {value[:40]!r}"
        case Mapping():
            return f"an object with {', '.join(sorted(value)[:8]) or 'nothing in it'}"
        case list():
            return "a list"
        case _:
            return f"the value {value!r}"


_KINDS = {
    "task": "task",
    "message": "message",
    "status-update": "statusUpdate",
    "artifact-update": "artifactUpdate",
}
_STATES = {state.value: state for state in TaskState}
_SNAKE = {
    "statusUpdate": "status_update",
    "artifactUpdate": "artifact_update",
    "taskId": "task_id",
    "contextId": "context_id",
    "messageId": "message_id",
    "artifactId": "artifact_id",
    "lastChunk": "last_chunk",
    "referenceTaskIds": "reference_task_ids",
    "mediaType": "media_type",
    "mimeType": "mime_type",
    "fileWithUri": "file_with_uri",
    "fileWithBytes": "file_with_bytes",
}
