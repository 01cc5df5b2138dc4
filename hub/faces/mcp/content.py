"""Parts as MCP content blocks, and an agent's outcome as the result of a `tools/call`.

The reverse of `interhub.adapters.mcp.content`. Nothing here does any I/O.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast
from urllib.parse import quote

import mcp_types as types
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from interhub.adapters import Artifact, Completed, DataPart, Part, RawPart, TextPart, UrlPart, text_of
from interhub.adapters.exact_json import write_json
from interhub.adapters.mcp.outline import OUTLINE_KEY, outline_of
from interhub.agent_cards import Json, JsonObject

RESERVED = "io.modelcontextprotocol/"
"""Prefix of the `_meta` keys that belong to each hop, and are not passed on."""

ANY_KINDS: Sequence[Json] = [
    {"type": "object", "additionalProperties": True},
    {"type": "array", "items": {"type": ["object", "array", "string", "number", "boolean", "null"]}},
    {"type": "string"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
]
"""Any JSON, spelled out: some models' providers refuse a schema that says nothing."""

SKILL_OUTPUT_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "description": "The answer in words."},
        "data": {"description": "The answer's structured data, where the agent gave any.", "anyOf": ANY_KINDS},
        "artifacts": {
            "type": "array",
            "description": "What the agent made. Binary ones are in the result's content.",
            "items": {
                "type": "object",
                "properties": {
                    "artifact_id": {"type": "string"},
                    "name": {"type": "string"},
                    "description": {"type": "string"},
                    "text": {"type": "string"},
                    "data": {"anyOf": ANY_KINDS},
                    "files": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": {"type": "string"},
                                "media_type": {"type": "string"},
                                "bytes": {"type": "integer"},
                                "url": {"type": "string"},
                            },
                        },
                    },
                    "truncated": {"type": "string", "description": "Says how much was left out, and how to get it."},
                },
                "required": ["artifact_id"],
            },
        },
    },
    "required": ["answer"],
}
"""What a skill's tool gives as structured content: everything a model needs, for clients that show it nothing else."""


LISTED_OUTPUT_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "data": {"anyOf": [{"type": kind} for kind in ("object", "array", "string", "number", "boolean", "null")]},
        "artifacts": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["answer"],
}
"""The same in short, for lists of many skills."""


def json_text(value: Json) -> str:
    """Return compact JSON."""
    return write_json(value).decode()


def content_of(parts: Iterable[Part]) -> list[types.ContentBlock]:
    """Turn parts into content blocks."""
    return [_block(part) for part in parts]


def _block(part: Part) -> types.ContentBlock:
    annotations = _annotations(part.metadata.get("annotations"))
    meta = passed_on(part.metadata.get("_meta"))
    match part:
        case TextPart():
            uri = part.metadata.get("uri")
            if isinstance(uri, str):  # an embedded resource of an MCP server, which had an identity
                text = types.TextResourceContents(uri=uri, mime_type=part.media_type or None, text=part.text)
                return types.EmbeddedResource(resource=text, annotations=annotations, _meta=meta)
            return types.TextContent(text=part.text, annotations=annotations, _meta=meta)
        case DataPart():
            return types.TextContent(text=json_text(part.data), annotations=annotations, _meta=meta)
        case UrlPart():
            return types.ResourceLink(
                uri=part.url,
                name=part.filename or part.url,
                mime_type=part.media_type or None,
                size=size if isinstance(size := part.metadata.get("size"), int) else None,
                annotations=annotations,
                _meta=meta,
            )
        case RawPart():
            data = b64encode(part.raw).decode("ascii")
            uri = part.metadata.get("uri")
            if not isinstance(uri, str):
                if part.media_type.startswith("image/"):
                    return types.ImageContent(data=data, mime_type=part.media_type, annotations=annotations, _meta=meta)
                if part.media_type.startswith("audio/"):
                    return types.AudioContent(data=data, mime_type=part.media_type, annotations=annotations, _meta=meta)
                uri = file_uri(part)
            blob = types.BlobResourceContents(uri=uri, mime_type=part.media_type or None, blob=data)
            return types.EmbeddedResource(resource=blob, annotations=annotations, _meta=meta)


def file_uri(part: RawPart) -> str:
    """Return a name for a file's bytes; it identifies them and is not read by anybody."""
    return f"urn:sha256:{sha256(part.raw).hexdigest()[:32]}" + (f"?={quote(part.filename)}" if part.filename else "")


def _annotations(value: Json) -> types.Annotations | None:
    if not isinstance(value, Mapping):
        return None
    try:
        return types.Annotations.model_validate(value)
    except ValidationError:
        return None


def passed_on(meta: object) -> dict[str, Json] | None:
    """Return `_meta` without the keys that belong to one hop (MCP 2026-07-28, basic/index, `_meta`)."""
    if not isinstance(meta, Mapping):
        return None
    named = cast("JsonObject", meta)
    kept: dict[str, Json] = {
        key: value for key, value in named.items() if not key.startswith(RESERVED) and value is not None
    }
    return kept or None


def data_of(parts: Iterable[Part]) -> Json:
    """Return the data parts' data: of one itself, of several the list, of none None."""
    found = [part.data for part in parts if isinstance(part, DataPart)]
    return found[0] if len(found) == 1 else found or None


def artifact_view(artifact: Artifact, *, limit: int | None = None, remedy: str = "") -> dict[str, Json]:
    """Describe an artifact: its text and data up to `limit` characters each, its files by name and size.

    `remedy` says, where something was left out, how to get it.
    """
    view: dict[str, Json] = {"artifact_id": artifact.artifact_id}
    if artifact.name:
        view["name"] = artifact.name
    if artifact.description:
        view["description"] = artifact.description
    notes: list[str] = []
    text = text_of(artifact.parts)
    if text:
        view["text"] = text[:limit]
        if limit is not None and len(text) > limit:
            notes.append(f"{len(text) - limit} of {len(text)} characters of text are left out")
    data = data_of(artifact.parts)
    if data is not None:
        size = len(json_text(data)) if limit is not None else 0
        if limit is not None and size > limit:
            notes.append(f"{size} characters of data are left out")
        else:
            view["data"] = data
    files = [_file_view(part) for part in artifact.parts if isinstance(part, RawPart | UrlPart)]
    if files:
        view["files"] = files
    if notes:
        view["truncated"] = f"{'; '.join(notes)}; {remedy}"
    return view


def _file_view(part: RawPart | UrlPart) -> dict[str, Json]:
    view: dict[str, Json] = {}
    if part.filename:
        view["name"] = part.filename
    if part.media_type:
        view["media_type"] = part.media_type
    if isinstance(part, UrlPart):
        view["url"] = part.url
    else:
        view["bytes"] = len(part.raw)
    return view


def skill_view(outcome: Completed) -> dict[str, Json]:
    """Return a skill's answer as structured content, by SKILL_OUTPUT_SCHEMA."""
    view: dict[str, Json] = {"answer": text_of(outcome.parts)}
    data = outcome.structured if outcome.structured is not None else data_of(outcome.parts)
    if data is not None:
        view["data"] = data
    artifacts = [artifact_view(artifact) for artifact in outcome.artifacts]
    loose = tuple(part for part in outcome.parts if isinstance(part, RawPart | UrlPart))
    if loose:
        artifacts.append(artifact_view(Artifact(artifact_id="answer", parts=loose, name="answer")))
    if artifacts:
        view["artifacts"] = artifacts
    return view


def skill_result(outcome: Completed) -> types.CallToolResult:
    """Return a skill's answer, whole, as the result of a `tools/call`."""
    content = content_of(outcome.parts)
    for artifact in outcome.artifacts:
        content += content_of(artifact.parts)
    view = skill_view(outcome)
    if not content:
        content.append(types.TextContent(text=json_text(view)))
    outline = outline_of(outcome)
    meta = {OUTLINE_KEY: cast("Any", outline)} if outline is not None else None
    return types.CallToolResult(content=content, structured_content=view, _meta=meta)


def tool_result(outcome: Completed, protocol_version: str) -> types.CallToolResult:
    """Return an MCP tool's result, as its server gave it where it was one.

    Structured content that is no object cannot be said in the legacy era (MCP 2025-11-25, server/tools) and goes as
    text there.
    """
    result: types.CallToolResult | None = None
    if outcome.raw is not None and isinstance(outcome.raw.get("content"), Sequence):
        raw = {key: value for key, value in outcome.raw.items() if key != "_meta"}
        try:
            result = types.CallToolResult.model_validate({**raw, "_meta": passed_on(outcome.raw.get("_meta"))})
        except ValidationError:
            result = None  # a content type of a later version: its parts say it in today's
    if result is None:
        content = content_of((*outcome.parts, *(part for made in outcome.artifacts for part in made.parts)))
        result = types.CallToolResult(content=content, structured_content=outcome.structured)
    structured = cast("Json", result.structured_content)
    legacy = protocol_version not in MODERN_PROTOCOL_VERSIONS
    updates: dict[str, object] = {}
    if structured is not None and not result.content:
        updates["content"] = [types.TextContent(text=json_text(structured))]
    if legacy and structured is not None and not isinstance(structured, Mapping):
        updates["structured_content"] = None
    return result.model_copy(update=updates) if updates else result


def error_result(message: str, parts: Sequence[Part] = ()) -> types.CallToolResult:
    """Return a failure that a model can read and act on (MCP 2026-07-28, server/tools, error handling)."""
    return types.CallToolResult(content=[*content_of(parts or [TextPart(text=message)])], is_error=True)
