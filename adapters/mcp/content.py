"""MCP results as parts and outcomes, and people's answers as MCP elicitation results. Nothing here does any I/O."""

from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Mapping, Sequence
from typing import cast

import orjson

from interhub.adapters.base import Completed, InputRequest, InputRequired, LogLine, Progress, Resume, Update
from interhub.adapters.content import DataPart, Part, RawPart, TextPart, UrlPart, text_of
from interhub.adapters.errors import ProtocolViolation, RemoteRefused
from interhub.agent_cards import Json, JsonObject

from .outline import with_outline

ELICIT = "elicitation/create"
ROOTS = "roots/list"


def completed(result: JsonObject, label: str) -> Completed:
    """Read the result of `tools/call`, `prompts/get` or `resources/read`.

    Raises:
        RemoteRefused: the result says that it is an error (`isError`).
        ProtocolViolation: it is not of a shape that MCP allows.
    """
    if isinstance(messages := result.get("messages"), Sequence):
        parts = tuple(_prompt_part(_mapping(message, label), label) for message in messages)
    elif isinstance(contents := result.get("contents"), Sequence):
        parts = tuple(_resource_part(_mapping(content, label), label, {}) for content in contents)
    else:
        blocks = result.get("content", [])
        if isinstance(blocks, str) or not isinstance(blocks, Sequence):
            raise ProtocolViolation(label, f"its result's content is {type(blocks).__name__}, not a list of blocks")
        parts = tuple(part_of(_mapping(block, label), label) for block in blocks)
    if result.get("isError") is True:
        raise RemoteRefused(label, text_of(parts) or "it says that the tool failed, and no more", parts)
    found = Completed(parts=parts, structured=result.get("structuredContent"), raw=result)
    return with_outline(found, result.get("_meta"))


def part_of(block: JsonObject, label: str) -> Part:
    """Turn a content block (MCP 2026-07-28, server/tools, tool result) into a part; an unknown type becomes data.

    Raises:
        ProtocolViolation: the block lacks what its type promises.
    """
    kind = block.get("type")
    metadata = {key: block[key] for key in ("annotations", "_meta") if block.get(key) is not None}
    match kind:
        case "text":
            return TextPart(text=_text(block, "text", label), metadata=metadata)
        case "image" | "audio":
            raw = _bytes(block.get("data"), label)
            return RawPart(raw=raw, media_type=_text(block, "mimeType", label), metadata=metadata)
        case "resource_link":
            for key in ("title", "description", "size"):
                if block.get(key) is not None:
                    metadata[key] = block[key]
            return UrlPart(
                url=_text(block, "uri", label),
                media_type=str(block.get("mimeType") or ""),
                filename=str(block.get("name") or ""),
                metadata=metadata,
            )
        case "resource":
            return _resource_part(_mapping(block.get("resource"), label), label, metadata)
        case _:
            return DataPart(data=block, metadata=metadata)


def _prompt_part(message: JsonObject, label: str) -> Part:
    part = part_of(_mapping(message.get("content"), label), label)
    metadata = {**part.metadata, "role": message.get("role")}
    match part:
        case TextPart():
            return TextPart(text=part.text, media_type=part.media_type, metadata=metadata)
        case RawPart():
            return RawPart(raw=part.raw, media_type=part.media_type, metadata=metadata)
        case UrlPart():
            return UrlPart(url=part.url, media_type=part.media_type, filename=part.filename, metadata=metadata)
        case DataPart():
            return DataPart(data=part.data, metadata=metadata)


def _resource_part(resource: JsonObject, label: str, metadata: JsonObject) -> Part:
    media_type = str(resource.get("mimeType") or "")
    metadata = {**metadata, "uri": resource.get("uri")}
    if resource.get("_meta") is not None:
        metadata["_meta"] = resource["_meta"]
    if "blob" in resource:
        return RawPart(raw=_bytes(resource["blob"], label), media_type=media_type, metadata=metadata)
    return TextPart(text=_text(resource, "text", label), media_type=media_type, metadata=metadata)


# Notifications


def update_of(method: str, params: JsonObject) -> Update | None:
    """Read a notification that belongs to a call; None when it is no update."""
    match method:
        case "notifications/progress":
            done, total, text = params.get("progress"), params.get("total"), params.get("message")
            return Progress(
                text=text if isinstance(text, str) else "",
                done=float(done) if isinstance(done, int | float) else None,
                total=float(total) if isinstance(total, int | float) else None,
            )
        case "notifications/message":
            data, level = params.get("data"), params.get("level")
            text = data if isinstance(data, str) else orjson.dumps(data).decode()
            return LogLine(text=text, level=level if isinstance(level, str) else "info")
        case _:
            return None


# Questions


def question(requests: Mapping[str, JsonObject], *, state: Json, raw: JsonObject, label: str) -> InputRequired:
    """Put what a server asks (MCP elicitation) to the caller. `requests` are by the ids that answers are given under.

    Raises:
        RemoteRefused: it asks for what we said we do not offer, such as sampling.
    """
    asked = {key: _mapping(request.get("params"), label) for key, request in requests.items()}
    for key, request in requests.items():
        if request.get("method") != ELICIT:
            raise RemoteRefused(label, f"it asks for {request.get('method')} ({key}), which this hub does not offer it")
    found = [_input_request(key, params) for key, params in asked.items()]
    if len(found) != 1:
        return InputRequired.several(found, state=state, raw=raw)
    one = found[0]
    return InputRequired(question=one.question, schema=one.schema, state=state, auth=one.auth, raw=raw)


def _input_request(key: str, params: JsonObject) -> InputRequest:
    parts: list[Part] = [TextPart(text=str(params.get("message") or ""))]
    auth = params.get("mode") == "url"
    if auth and params.get("url"):
        parts.append(UrlPart(url=str(params["url"])))
    wanted = params.get("requestedSchema")
    schema = wanted if isinstance(wanted, Mapping) else None
    return InputRequest(key=key, question=tuple(parts), schema=schema, auth=auth)


def url_elicitations(data: Json) -> dict[str, JsonObject] | None:
    """Read the error data of a server that wants pages opened first; None when it holds none."""
    wanted = data.get("elicitations") if isinstance(data, Mapping) else None
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        return None
    items = [item for item in wanted if isinstance(item, Mapping)]
    return {str(number): {"method": ELICIT, "params": {"mode": "url", **item}} for number, item in enumerate(items)}


def elicit_results(requests: Mapping[str, JsonObject], resume: Resume) -> dict[str, Json]:
    """Make the results of what was asked out of a person's answer, by the ids of the requests.

    A form's fields are read from a data part, those of one of several from their own field in there (null declines).
    Text alone answers a form that has one field, as that field's type.
    """
    if not resume.accepted:
        return {key: {"action": "decline"} for key in requests}
    data = next((part.data for part in resume.answer if isinstance(part, DataPart)), None)
    text = text_of(resume.answer)
    results: dict[str, Json] = {}
    for key, request in requests.items():
        params = cast(JsonObject, request.get("params") or {})
        given = data
        if len(requests) > 1 and isinstance(data, Mapping):
            given = data.get(key)
            if given is None:
                results[key] = {"action": "decline"}
                continue
        if params.get("mode") == "url":
            results[key] = {"action": "accept"}
            continue
        if isinstance(given, Mapping):
            results[key] = {"action": "accept", "content": given}
        else:
            results[key] = {"action": "accept", "content": _one_field(params.get("requestedSchema"), text, given)}
    return results


def _one_field(schema: Json, text: str, data: Json) -> dict[str, Json]:
    """Put a bare answer under the name of the form's one field: the only one, or the only one that is required."""
    if not isinstance(schema, Mapping):
        return {}
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return {}
    required = schema.get("required")
    named = [str(name) for name in required] if isinstance(required, Sequence) and not isinstance(required, str) else []
    name = named[0] if len(named) == 1 else next(iter(properties))
    if len(properties) > 1 and len(named) != 1:
        return {}
    field = properties.get(name)
    kind = field.get("type") if isinstance(field, Mapping) else None
    return {name: data if data is not None else _typed(text.strip(), kind)}


def _typed(text: str, kind: Json) -> Json:
    try:
        match kind:
            case "boolean":
                return text.casefold() in ("yes", "y", "true", "1", "ok", "on")
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "array":
                return [item.strip() for item in text.split(",") if item.strip()]
            case _:
                return text
    except ValueError:
        return text  # the server says what is wrong with it, in its own words


def _mapping(value: Json, label: str) -> JsonObject:
    if not isinstance(value, Mapping):
        raise ProtocolViolation(label, f"an object is expected in its result, not {type(value).__name__}")
    return value


def _text(block: JsonObject, key: str, label: str) -> str:
    value = block.get(key)
    if not isinstance(value, str):
        raise ProtocolViolation(label, f"a content block of type {block.get('type', 'resource')!r} has no {key}")
    return value


def _bytes(value: Json, label: str) -> bytes:
    if not isinstance(value, str):
        raise ProtocolViolation(label, "a content block's data is missing")
    try:
        return b64decode(value, validate=True)
    except (BadBase64, ValueError) as error:
        raise ProtocolViolation(label, f"a content block's data is not base64: {error}") from error
