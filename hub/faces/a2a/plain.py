"""Messages read and tasks written as JSON itself (A2A 1.0, section 5.5), without protobuf in between.

What `task` writes through the SDK's types is written here too, for the requests that `entrance` answers; that both say
the same is held by tests/hub/faces/test_a2a_entrance.py.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from interhub.adapters import Message
from interhub.adapters.content import artifact_to_json, check_extension_uris, message_from_json, message_to_json
from interhub.agent_cards import Json, JsonObject
from interhub.hub.supervisor.run import Run, RunState

from .task import answer_of, artifacts_of, metadata_of, said_of

_MESSAGE = frozenset({"messageId", "role", "parts", "contextId", "metadata", "extensions", "referenceTaskIds"})
_PART = frozenset({"text", "data", "url", "raw", "mediaType", "filename", "metadata"})
_CONTENT = frozenset({"text", "data", "url", "raw"})

_STATES: Mapping[RunState, str] = {state: f"TASK_STATE_{state.name}" for state in RunState}


def plain_message(given: object) -> Message | None:
    """Read a message that begins a task; None for one that the SDK should look at: it says what is wrong with it."""
    if not isinstance(given, dict):
        return None
    shaped = cast("dict[str, Json]", given)
    parts = shaped.get("parts")
    if not shaped.keys() <= _MESSAGE or shaped.get("role") != "ROLE_USER" or not _is_id(shaped.get("messageId")):
        return None
    if not isinstance(parts, list) or not parts or not all(_is_part(part) for part in parts):
        return None
    for name, kind in (("contextId", str), ("metadata", dict), ("extensions", list), ("referenceTaskIds", list)):
        if name in shaped and not isinstance(shaped[name], kind):
            return None
    try:
        message = message_from_json(shaped)
        check_extension_uris(message)
    except ValueError:
        return None
    return message


def plain_task(run: Run, history: Sequence[Message]) -> dict[str, Json]:
    """Write a run as a task."""
    status: dict[str, Json] = {"state": _STATES[run.state], "timestamp": _timestamp(run.updated_at)}
    said = said_of(run)
    if said is not None:
        status["message"] = _message(said, run, "")
    task: dict[str, Json] = {"id": run.id, "contextId": run.context_id, "status": status, "metadata": metadata_of(run)}
    if artifacts := artifacts_of(run):
        task["artifacts"] = [artifact_to_json(artifact) for artifact in artifacts]
    if history:
        task["history"] = [_message(message, run, f"{run.id}.{place}") for place, message in enumerate(history)]
    return task


def plain_answer(run: Run) -> dict[str, Json]:
    """Write the answer of a run as a message."""
    return {**message_to_json(answer_of(run)), "contextId": run.context_id}


def _message(message: Message, run: Run, message_id: str) -> JsonObject:
    shaped = message_to_json(message)
    shaped["messageId"] = message.message_id or message_id
    return {**shaped, "taskId": run.id, "contextId": run.context_id}


def _is_part(given: Json) -> bool:
    if not isinstance(given, dict) or not given.keys() <= _PART or len(given.keys() & _CONTENT) != 1:
        return False
    if any(name in given and not isinstance(given[name], str) for name in ("text", "url", "mediaType", "filename")):
        return False
    return "raw" not in given and isinstance(given.get("metadata", {}), dict)


def _is_id(given: Json) -> bool:
    return isinstance(given, str) and given != ""


def _timestamp(at: datetime) -> str:
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
