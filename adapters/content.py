"""A2A's message, part and artifact: what passes between agents. MCP content is converted at the edge.

The JSON shape used wherever these are stored or shown is that of A2A 1.0 (section 4.1).
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from interhub.agent_cards import Json, JsonObject, empty_object


class Role(StrEnum):
    """Who speaks (A2A 1.0, section 4.1.5)."""

    USER = "ROLE_USER"
    AGENT = "ROLE_AGENT"


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """Text for a person or a model."""

    text: str
    media_type: str = ""
    filename: str = ""
    metadata: JsonObject = field(default_factory=empty_object)


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """Structured data."""

    data: Json
    media_type: str = ""
    filename: str = ""
    metadata: JsonObject = field(default_factory=empty_object)


@dataclass(frozen=True, kw_only=True)
class RawPart:
    """A file's bytes."""

    raw: bytes
    media_type: str = ""
    filename: str = ""
    metadata: JsonObject = field(default_factory=empty_object)


@dataclass(frozen=True, kw_only=True)
class UrlPart:
    """A file by reference."""

    url: str
    media_type: str = ""
    filename: str = ""
    metadata: JsonObject = field(default_factory=empty_object)


Part: TypeAlias = TextPart | DataPart | RawPart | UrlPart
"""One piece of a message or artifact (A2A 1.0, section 4.1.6)."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation (A2A 1.0, section 4.1.4)."""

    role: Role
    parts: tuple[Part, ...]
    message_id: str = ""
    context_id: str = ""
    task_id: str = ""
    metadata: JsonObject = field(default_factory=empty_object)
    extensions: tuple[str, ...] = ()
    reference_task_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something an agent made (A2A 1.0, section 4.1.7)."""

    artifact_id: str
    parts: tuple[Part, ...]
    name: str = ""
    description: str = ""
    metadata: JsonObject = field(default_factory=empty_object)
    extensions: tuple[str, ...] = ()


def text_of(parts: Sequence[Part]) -> str:
    """Join the text parts, one to a line."""
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def part_to_json(part: Part) -> dict[str, Json]:
    """Write a part in A2A 1.0 JSON."""
    match part:
        case TextPart():
            shaped: dict[str, Json] = {"text": part.text}
        case DataPart():
            shaped = {"data": part.data}
        case RawPart():
            shaped = {"raw": b64encode(part.raw).decode("ascii")}
        case UrlPart():
            shaped = {"url": part.url}
    if part.media_type:
        shaped["mediaType"] = part.media_type
    if part.filename:
        shaped["filename"] = part.filename
    if part.metadata:
        shaped["metadata"] = part.metadata
    return shaped


def part_from_json(shaped: JsonObject) -> Part:
    """Read a part from A2A 1.0 JSON.

    Raises:
        ValueError: it has none of `text`, `data`, `raw` and `url`, or one of a wrong type.
    """
    media_type = _text(shaped, "mediaType")
    filename = _text(shaped, "filename")
    metadata = _object(shaped, "metadata")
    if "text" in shaped:
        return TextPart(text=_text(shaped, "text"), media_type=media_type, filename=filename, metadata=metadata)
    if "raw" in shaped:
        raw = b64decode(_text(shaped, "raw"), validate=True)
        return RawPart(raw=raw, media_type=media_type, filename=filename, metadata=metadata)
    if "url" in shaped:
        return UrlPart(url=_text(shaped, "url"), media_type=media_type, filename=filename, metadata=metadata)
    if "data" in shaped:
        return DataPart(data=shaped["data"], media_type=media_type, filename=filename, metadata=metadata)
    raise ValueError(f"a part needs one of text, data, raw and url; this one has {sorted(shaped)}")


def message_to_json(message: Message) -> dict[str, Json]:
    """Write a message in A2A 1.0 JSON."""
    shaped: dict[str, Json] = {
        "messageId": message.message_id,
        "role": message.role.value,
        "parts": [part_to_json(part) for part in message.parts],
    }
    if message.context_id:
        shaped["contextId"] = message.context_id
    if message.task_id:
        shaped["taskId"] = message.task_id
    if message.metadata:
        shaped["metadata"] = message.metadata
    if message.extensions:
        shaped["extensions"] = list(message.extensions)
    if message.reference_task_ids:
        shaped["referenceTaskIds"] = list(message.reference_task_ids)
    return shaped


def message_from_json(shaped: JsonObject) -> Message:
    """Read a message from A2A 1.0 JSON.

    Raises:
        ValueError: the role or a part is not one.
    """
    return Message(
        role=Role(_text(shaped, "role")),
        parts=parts_from_json(shaped.get("parts")),
        message_id=_text(shaped, "messageId"),
        context_id=_text(shaped, "contextId"),
        task_id=_text(shaped, "taskId"),
        metadata=_object(shaped, "metadata"),
        extensions=_texts(shaped, "extensions"),
        reference_task_ids=_texts(shaped, "referenceTaskIds"),
    )


def is_extension(uri: str) -> bool:
    """Whether an extension can be named in `A2A-Extensions`, a header that lists URIs (A2A 1.0, section 3.2.6)."""
    return _EXTENSION.fullmatch(uri) is not None


def check_extension_uris(message: Message) -> None:
    """Refuse a received message with an extension that no header can name.

    Raises:
        ValueError: says which one.
    """
    for uri in message.extensions:
        if not is_extension(uri):
            raise ValueError(
                f"{uri[:60]!r} in extensions is no URI: one has visible ASCII characters but the comma, at most 512"
            )


def artifact_to_json(artifact: Artifact) -> dict[str, Json]:
    """Write an artifact in A2A 1.0 JSON."""
    shaped: dict[str, Json] = {
        "artifactId": artifact.artifact_id,
        "parts": [part_to_json(part) for part in artifact.parts],
    }
    if artifact.name:
        shaped["name"] = artifact.name
    if artifact.description:
        shaped["description"] = artifact.description
    if artifact.metadata:
        shaped["metadata"] = artifact.metadata
    if artifact.extensions:
        shaped["extensions"] = list(artifact.extensions)
    return shaped


def artifact_from_json(shaped: JsonObject) -> Artifact:
    """Read an artifact from A2A 1.0 JSON.

    Raises:
        ValueError: a part is not one.
    """
    return Artifact(
        artifact_id=_text(shaped, "artifactId"),
        parts=parts_from_json(shaped.get("parts")),
        name=_text(shaped, "name"),
        description=_text(shaped, "description"),
        metadata=_object(shaped, "metadata"),
        extensions=_texts(shaped, "extensions"),
    )


def parts_from_json(shaped: Json) -> tuple[Part, ...]:
    """Read a list of parts; nothing at all is no parts.

    Raises:
        ValueError: it is not a list of objects, or a part is not one.
    """
    if shaped is None:
        return ()
    if isinstance(shaped, str) or not isinstance(shaped, Sequence):
        raise ValueError(f"parts must be a list, not {type(shaped).__name__}")
    parts: list[Part] = []
    for part in shaped:
        if not isinstance(part, dict):
            raise ValueError(f"a part must be an object, not {type(part).__name__}")
        parts.append(part_from_json(part))
    return tuple(parts)


def _text(shaped: JsonObject, key: str) -> str:
    value = shaped.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a string, not {type(value).__name__}")
    return value


def _texts(shaped: JsonObject, key: str) -> tuple[str, ...]:
    value = shaped.get(key)
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{key} must be a list of strings")
    return tuple(str(item) for item in value)


def _object(shaped: JsonObject, key: str) -> JsonObject:
    value = shaped.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be an object, not {type(value).__name__}")
    return value


_EXTENSION = re.compile(r"[!-+\--~]{1,512}")
