"""What an A2A answer was, beside its content blocks in a result of MCP's: so that a hub behind it can put it back.

MCP's blocks know neither artifacts nor data nor the names of files; `_meta` carries those, block by block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import orjson

from interhub.adapters.base import Completed
from interhub.adapters.content import (
    DataPart,
    Part,
    RawPart,
    TextPart,
    UrlPart,
    artifact_from_json,
    artifact_to_json,
    part_to_json,
)
from interhub.agent_cards import Json, JsonObject

OUTLINE_KEY = "interhub.dev/a2a"
"""In a result's `_meta`: `artifacts`, without their parts, and `parts`, without what the blocks say."""

_CONTENT = ("text", "raw", "url", "data")


def outline_of(outcome: Completed) -> JsonObject | None:
    """Return the outline of an answer whose blocks are its parts and then its artifacts'; None for plain texts."""
    parts: list[Json] = [_outlined(part, None) for part in outcome.parts]
    for place, artifact in enumerate(outcome.artifacts):
        parts += [_outlined(part, place) for part in artifact.parts]
    if all(part == {"of": "text"} for part in parts):
        return None
    artifacts = [artifact_to_json(replace(artifact, parts=())) for artifact in outcome.artifacts]
    return {"artifacts": cast("list[Json]", artifacts), "parts": parts}


def with_outline(outcome: Completed, meta: Json) -> Completed:
    """Return an outcome as its outline says that it was; as it is where there is none, or none that fits."""
    outline = meta.get(OUTLINE_KEY) if isinstance(meta, Mapping) else None
    if not isinstance(outline, Mapping):
        return outcome
    try:
        shapes = _objects(outline.get("parts"))
        artifacts = [artifact_from_json({**shape, "parts": []}) for shape in _objects(outline.get("artifacts"))]
        made: list[list[Part]] = [[] for _ in artifacts]
        own: list[Part] = []
        for shape, part in zip(shapes, outcome.parts, strict=True):
            place = shape.get("artifact")
            (made[place] if isinstance(place, int) and place >= 0 else own).append(_restored(shape, part))
    except (ValueError, LookupError):
        return outcome
    whole = [replace(artifact, parts=tuple(parts)) for artifact, parts in zip(artifacts, made, strict=True)]
    return replace(outcome, parts=tuple(own), artifacts=tuple(whole))


def _outlined(part: Part, artifact: int | None) -> JsonObject:
    shape: dict[str, Json] = dict(part_to_json(part))
    (content,) = (name for name in _CONTENT if name in shape)
    del shape[content]
    return {"of": content, **shape, **({} if artifact is None else {"artifact": artifact})}


def _restored(shape: JsonObject, part: Part) -> Part:
    """Return a part as it was before it became a block. A file that has become a link stays one."""
    match shape.get("of"), part:
        case "text", TextPart():
            found: Part = part
        case "raw", RawPart():
            found = part
        case "data", TextPart():
            found = DataPart(data=orjson.loads(part.text))
        case "url", UrlPart():
            found = part
        case _, UrlPart():
            return part
        case _:
            raise ValueError("the outline is another answer's")
    metadata = shape.get("metadata")
    return replace(
        found,
        media_type=str(shape.get("mediaType") or ""),
        filename=str(shape.get("filename") or ""),
        metadata=metadata if isinstance(metadata, Mapping) else {},
    )


def _objects(value: Json) -> list[JsonObject]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("not a list")
    found = [item for item in value if isinstance(item, Mapping)]
    if len(found) != len(value):
        raise ValueError("not a list of objects")
    return found
