"""An agent's capabilities as the lists of the hub show them: written to JSON once, for each version that is asked for.

What strangers wrote is cleaned on the way: invisible characters are left out (`interhub.agent_cards.invisible`), texts
beyond what a list needs are cut, and a definition that no client could read is left out with a line in the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mcp_types as types
import structlog
from mcp_types.methods import serialize_server_result
from pydantic import BaseModel, ValidationError

from interhub.adapters.exact_json import write_json
from interhub.agent_cards import Json, JsonObject, Kind, invisible, may_hide, visible_json
from interhub.registry import Agent

from .content import LISTED_OUTPUT_SCHEMA, passed_on
from .names import Entry, at_uri, named

log = structlog.get_logger()

MAX_DESCRIPTION = 8_000
"""Characters of a description that are listed: what is longer is cut."""
MAX_DEFINITION_BYTES = 256 * 1024
"""A larger definition is not listed; the capability can still be found and called."""
X_MCP_HEADER = "x-mcp-header"
KEYS: Mapping[str, str] = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
"""The lists, and the member of the result that holds each."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One item of a list."""

    key: str
    """Its name or URI at the hub; lists are in the order of these."""
    entry: Entry
    wire: bytes
    """JSON."""


@dataclass(frozen=True, kw_only=True)
class AgentEntries:
    """What one agent offers, under its names at the hub."""

    agent: Agent
    tools: tuple[Entry, ...] = ()
    prompts: tuple[Entry, ...] = ()
    resources: tuple[Entry, ...] = ()
    templates: tuple[Entry, ...] = ()
    _written: dict[tuple[str, str], tuple[Definition, ...]] = field(
        default_factory=dict[tuple[str, str], tuple[Definition, ...]], compare=False
    )

    def of(self, method: str) -> tuple[Entry, ...]:
        """Return the entries of a list."""
        return cast("tuple[Entry, ...]", getattr(self, _FIELDS[method]))

    def definitions(self, method: str, version: str) -> tuple[Definition, ...]:
        """Return a list's items as a version of the protocol has them; written at the first time, and kept."""
        key = (method, version)
        written = self._written.get(key)
        if written is None:
            written = self._written[key] = tuple(_definitions(self.of(method), method, version))
        return written


def entries_of(agent: Agent) -> AgentEntries:
    """Name everything that an agent offers, and put it in the order of the names."""
    of_kind = {kind: [each for each in agent.card.capabilities if each.kind is kind] for kind in Kind}

    def ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
        return tuple(sorted(entries, key=lambda entry: entry.name))

    return AgentEntries(
        agent=agent,
        tools=ordered(named(agent, [*of_kind[Kind.SKILL], *of_kind[Kind.TOOL]]).values()),
        prompts=ordered(named(agent, of_kind[Kind.PROMPT]).values()),
        resources=ordered(at_uri(agent, each) for each in of_kind[Kind.RESOURCE]),
        templates=ordered(at_uri(agent, each) for each in of_kind[Kind.RESOURCE_TEMPLATE]),
    )


_FIELDS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "templates",
}


def written(items: Sequence[BaseModel], method: str, version: str) -> list[bytes]:
    """Return definitions of our own as JSON, each as a version of the protocol has it."""
    return [write_json(each) for each in _sieved([_dump(item) for item in items], method, version)]


def _definitions(entries: Sequence[Entry], method: str, version: str) -> Iterable[Definition]:
    shaped: list[tuple[Entry, dict[str, Any]]] = []
    for entry in entries:
        if invisible(entry.name):  # only a URI can: to list it without them would be to list another one
            log.warning("mcp_definition_left_out", agent=entry.agent.id, name=ascii(entry.name), why="invisible name")
            continue
        shaped.append((entry, _shape(entry, method, version)))
    try:
        sieved = _sieved([item for _, item in shaped], method, version)
    except ValidationError:  # of one of them: look which, and keep the others
        sieved = list[dict[str, Any]]()
        kept = list[tuple[Entry, dict[str, Any]]]()
        for entry, item in shaped:
            try:
                sieved += _sieved([item], method, version)
                kept.append((entry, item))
            except ValidationError as error:
                why = "; ".join(str(each["loc"]) for each in error.errors()[:3])
                log.warning("mcp_definition_left_out", agent=entry.agent.id, name=entry.name, why=f"invalid: {why}")
        shaped = kept
    for (entry, _), item in zip(shaped, sieved, strict=True):
        wire = write_json(item)
        if may_hide(wire):
            wire = write_json({**cast("dict[str, Json]", visible_json(item)), **_names(item)})
        if len(wire) > MAX_DEFINITION_BYTES:
            why = f"{len(wire)} bytes"
            log.warning("mcp_definition_left_out", agent=entry.agent.id, name=entry.name, why=why)
            continue
        yield Definition(entry.name, entry, wire)


def _names(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item[key] for key in ("uri", "uriTemplate") if key in item}


def _sieved(items: Sequence[Mapping[str, Any]], method: str, version: str) -> list[dict[str, Any]]:
    key = KEYS[method]
    hints = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    whole = serialize_server_result(method, version, {key: items, **hints})
    return cast("list[dict[str, Any]]", whole[key])


def _shape(entry: Entry, method: str, version: str) -> dict[str, Any]:
    match method:
        case "tools/list":
            item: BaseModel = tool_of(entry)
        case "prompts/list":
            item = _prompt(entry)
        case "resources/list":
            item = _resource(entry)
        case _:
            item = _template(entry)
    shaped = _dump(item)
    description = shaped.get("description")
    if isinstance(description, str) and len(description) > MAX_DESCRIPTION:
        shaped["description"] = description[: MAX_DESCRIPTION - 1] + "…"
    return shaped if method != "tools/list" else _legacy_tool(shaped, version)


def _dump(item: BaseModel) -> dict[str, Any]:
    return item.model_dump(by_alias=True, mode="json", exclude_none=True)


def _legacy_tool(tool: dict[str, Any], version: str) -> dict[str, Any]:
    """Return a tool as a version can say it: before 2026-07-28, an output schema only where it is of type object."""
    output = tool.get("outputSchema")
    if output is None or version >= types.LATEST_PROTOCOL_VERSION or output.get("type") == "object":
        return tool
    return {key: value for key, value in tool.items() if key != "outputSchema"}


def tool_of(entry: Entry) -> types.Tool:
    """Return a capability as a tool."""
    capability = entry.capability
    skill = capability.kind is Kind.SKILL
    schema = cast("dict[str, Json]", without_headers(capability.input_schema))
    output = LISTED_OUTPUT_SCHEMA if skill else capability.output_schema
    tool = types.Tool(
        name=entry.name,
        title=capability.title or None,
        description=capability.description or (entry.agent.card.description if skill else None) or None,
        input_schema={"type": "object", **schema},
        output_schema=dict(output) if output is not None else None,
    )
    raw = capability.raw
    if skill or not raw:
        return tool
    try:
        return tool.model_copy(
            update={
                "title": raw.get("title"),
                "annotations": _hints(raw),
                "icons": _icons(raw),
                "meta": passed_on(raw.get("_meta")),
            }
        )
    except ValidationError as error:
        log.warning("tool_hints_unreadable", agent=entry.agent.id, tool=capability.name, why=str(error))
        return tool


def without_headers(schema: Json) -> Json:
    """Return a schema without `x-mcp-header`.

    The annotation is a promise between a client and the server it posts to (MCP 2026-07-28, basic/transports). Ours
    posts to the hub, which reads arguments from the body; the adapter keeps the promise towards the agent.
    """
    if isinstance(schema, Mapping):
        return {key: without_headers(value) for key, value in schema.items() if key != X_MCP_HEADER}
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [without_headers(value) for value in schema]
    return schema


def _prompt(entry: Entry) -> types.Prompt:
    capability = entry.capability
    try:
        return types.Prompt.model_validate({**capability.raw, "name": entry.name})
    except ValidationError:
        return types.Prompt(name=entry.name, title=capability.title or None, description=capability.description or None)


def _resource(entry: Entry) -> types.Resource:
    capability = entry.capability
    try:
        return types.Resource.model_validate(
            {"name": capability.title or capability.name, **capability.raw, "uri": entry.name}
        )
    except ValidationError:
        return types.Resource(
            uri=entry.name, name=capability.title or capability.name, description=capability.description or None
        )


def _template(entry: Entry) -> types.ResourceTemplate:
    capability = entry.capability
    name = capability.title or capability.name
    try:
        return types.ResourceTemplate.model_validate({"name": name, **capability.raw, "uriTemplate": entry.name})
    except ValidationError:
        return types.ResourceTemplate(uri_template=entry.name, name=name, description=capability.description or None)


def _hints(raw: JsonObject) -> types.ToolAnnotations | None:
    return types.ToolAnnotations.model_validate(raw["annotations"]) if raw.get("annotations") else None


def _icons(raw: JsonObject) -> list[types.Icon] | None:
    icons = raw.get("icons")
    if isinstance(icons, str) or not isinstance(icons, Sequence):
        return None
    return [types.Icon.model_validate(icon) for icon in icons]
