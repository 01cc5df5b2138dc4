"""Large parts of an answer, as resource links that are read later: `interhub-run:///RUN/artifacts/ID/PLACE`.

What a run gave is kept as long as the run. A direct call has none: its answer, if it is large, is kept as a run that
has ended, and so is found, listed and forgotten like every other, by its owner alone.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote, unquote

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interhub.adapters import Completed, DataPart, Part, RawPart, TextPart, UrlPart
from interhub.hub.supervisor.run import Run

from .content import json_text

MAX_EMBEDDED_BYTES = 512 * 1024
"""Most bytes of files, texts and data that one result embeds; what is beyond that is linked to."""

RESOURCE_NOT_FOUND_LEGACY = -32002
"""MCP 2025-11-25, server/resources, error handling; the modern era says invalid params."""

_URI = re.compile(r"interhub-run:///([\w.-]+)/(?:artifacts/([^/?#]+)|parts)/(\d{1,6})")


def is_large(outcome: Completed) -> bool:
    """Whether a result would embed more than it may."""
    return sum(map(size_of, _parts(outcome))) > MAX_EMBEDDED_BYTES


def linked(outcome: Completed, run_id: str, ids: Sequence[str]) -> Completed:
    """Return an answer with links in the place of the parts that no longer fit; `ids` are its artifacts' in the run."""
    left = MAX_EMBEDDED_BYTES

    def fitted(parts: Sequence[Part], path: str, *, said: bool = False) -> tuple[Part, ...]:
        nonlocal left
        found: list[Part] = []
        for place, part in enumerate(parts):
            if (size := size_of(part)) <= left:
                left -= size
                found.append(part)
                continue
            link = _link_to(part, f"interhub-run:///{run_id}/{path}/{place}", size)
            if said and isinstance(part, TextPart):
                found.append(TextPart(text=f"The answer has {size:,} bytes; it can be read at {link.url}"))
            found.append(link)
        return tuple(found)

    artifacts = tuple(
        replace(artifact, parts=fitted(artifact.parts, f"artifacts/{quote(own, safe='')}"))
        for artifact, own in zip(outcome.artifacts, ids, strict=True)
    )
    return replace(outcome, parts=fitted(outcome.parts, "parts", said=True), artifacts=artifacts)


def file_link(run_id: str, artifact_id: str, place: int, part: RawPart) -> UrlPart:
    """Return a link to a file of a run: of its artifact, or of its answer where that has no id."""
    path = f"artifacts/{quote(artifact_id, safe='')}" if artifact_id else "parts"
    return _link_to(part, f"interhub-run:///{run_id}/{path}/{place}", len(part.raw))


def _link_to(part: Part, uri: str, size: int) -> UrlPart:
    """Return the link in a part's place."""
    kinds: dict[type[Part], str] = {TextPart: "text/plain", DataPart: "application/json"}
    media_type = part.media_type or kinds.get(type(part), "application/octet-stream")
    return UrlPart(url=uri, media_type=media_type, filename=part.filename, metadata={"size": size})


def run_named(uri: str) -> str:
    """Return the run that a link leads to; empty for any other URI."""
    found = _URI.fullmatch(uri)
    return found[1] if found is not None else ""


def contents_of(run: Run, uri: str) -> types.ReadResourceResult | None:
    """Return what a link leads to; None where the run has no such part."""
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    parts: Sequence[Part] = run.parts
    if found[2] is not None:
        wanted = unquote(found[2])
        parts = next((made.parts for made in run.artifacts if made.artifact_id == wanted), ())
    if int(found[3]) >= len(parts):
        return None
    part = parts[int(found[3])]
    media_type = part.media_type or None
    if isinstance(part, RawPart):
        blob = b64encode(part.raw).decode("ascii")
        return types.ReadResourceResult(contents=[types.BlobResourceContents(uri=uri, mime_type=media_type, blob=blob)])
    text = part.text if isinstance(part, TextPart) else json_text(part.data) if isinstance(part, DataPart) else part.url
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=media_type, text=text)])


def resource_missing(protocol_version: str, uri: str) -> MCPError:
    """Return the error for a URI at which there is nothing."""
    modern = protocol_version in MODERN_PROTOCOL_VERSIONS
    code = types.INVALID_PARAMS if modern else RESOURCE_NOT_FOUND_LEGACY
    return MCPError(code, f"no resource is at {uri}", {"uri": uri})


def size_of(part: Part) -> int:
    """Return how many bytes a part puts into a result."""
    match part:
        case RawPart():
            return len(part.raw)
        case TextPart():
            return len(part.text.encode())
        case DataPart():
            return len(json_text(part.data).encode())
        case UrlPart():
            return 0


def _parts(outcome: Completed) -> Sequence[Part]:
    return [*outcome.parts, *(part for artifact in outcome.artifacts for part in artifact.parts)]
