"""Messages, parts and artifacts between the A2A SDK's protobuf types and ours; nothing is lost either way.

Protobuf holds every number as a double: whole ones come back as integers here, which is what JSON Schemas ask for.
"""

from collections.abc import Mapping, Sequence
from math import isfinite

from a2a import types as a2a
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from interhub.adapters import Artifact, DataPart, Message, Part, RawPart, Role, TextPart, UrlPart
from interhub.agent_cards import Json, JsonObject

_NULL = Value(null_value=NULL_VALUE)
_EXACT = 2**53
"""Doubles hold every whole number below this."""


def read_message(message: a2a.Message) -> Message:
    """Read a message that was received."""
    return Message(
        role=Role.AGENT if message.role == a2a.Role.ROLE_AGENT else Role.USER,
        parts=tuple(read_part(part) for part in message.parts),
        message_id=message.message_id,
        context_id=message.context_id,
        task_id=message.task_id,
        metadata=read_object(message.metadata),
        extensions=tuple(message.extensions),
        reference_task_ids=tuple(message.reference_task_ids),
    )


def read_part(part: a2a.Part) -> Part:
    """Read a part; one without content is an empty text."""
    metadata = read_object(part.metadata)
    match part.WhichOneof("content"):
        case "raw":
            return RawPart(raw=part.raw, media_type=part.media_type, filename=part.filename, metadata=metadata)
        case "url":
            return UrlPart(url=part.url, media_type=part.media_type, filename=part.filename, metadata=metadata)
        case "data":
            data = read_value(part.data)
            return DataPart(data=data, media_type=part.media_type, filename=part.filename, metadata=metadata)
        case _:
            return TextPart(text=part.text, media_type=part.media_type, filename=part.filename, metadata=metadata)


def read_object(struct: Struct) -> JsonObject:
    """Read a JSON object."""
    return {name: read_value(value) for name, value in struct.fields.items()}


def read_value(value: Value) -> Json:
    """Read a JSON value."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < _EXACT else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return read_object(value.struct_value)
        case "list_value":
            return [read_value(each) for each in value.list_value.values]
        case _:
            return None


def write_message(message: Message, *, message_id: str = "", task_id: str = "", context_id: str = "") -> a2a.Message:
    """Write a message; what is given besides it stands in for what it lacks."""
    written = a2a.Message(
        message_id=message.message_id or message_id,
        role=a2a.Role.ROLE_AGENT if message.role is Role.AGENT else a2a.Role.ROLE_USER,
        parts=write_parts(message.parts),
        task_id=task_id or message.task_id,
        context_id=context_id or message.context_id,
        extensions=message.extensions,
        reference_task_ids=message.reference_task_ids,
    )
    if message.metadata:
        written.metadata.CopyFrom(write_object(message.metadata))
    return written


def write_parts(parts: Sequence[Part]) -> list[a2a.Part]:
    """Write parts."""
    return [write_part(part) for part in parts]


def write_part(part: Part) -> a2a.Part:
    """Write a part."""
    written = a2a.Part(media_type=part.media_type, filename=part.filename)
    match part:
        case TextPart():
            written.text = part.text
        case DataPart():
            written.data.CopyFrom(write_value(part.data))
        case RawPart():
            written.raw = part.raw
        case UrlPart():
            written.url = part.url
    if part.metadata:
        written.metadata.CopyFrom(write_object(part.metadata))
    return written


def write_artifact(artifact: Artifact) -> a2a.Artifact:
    """Write an artifact."""
    written = a2a.Artifact(
        artifact_id=artifact.artifact_id,
        name=artifact.name,
        description=artifact.description,
        parts=write_parts(artifact.parts),
        extensions=artifact.extensions,
    )
    if artifact.metadata:
        written.metadata.CopyFrom(write_object(artifact.metadata))
    return written


def write_object(value: JsonObject) -> Struct:
    """Write a JSON object."""
    return Struct(fields={name: write_value(each) for name, each in value.items()})


def write_value(value: Json) -> Value:
    """Write a JSON value."""
    match value:
        case None:
            return _NULL
        case bool():
            return Value(bool_value=value)
        case int() | float():
            # JSON has no NaN and no infinity; the SDK would fail to write them.
            return Value(number_value=value) if isfinite(value) else _NULL
        case str():
            return Value(string_value=value)
        case Mapping():
            return Value(struct_value=write_object(value))
        case Sequence():
            return Value(list_value=ListValue(values=[write_value(each) for each in value]))
