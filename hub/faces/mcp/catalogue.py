"""Every registered agent's capabilities under one roof: how they are named, listed, and found again by name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Literal, TypeAlias, cast

import mcp_types as types
import structlog
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from pydantic import ValidationError

from interhub.adapters import Principal
from interhub.adapters.schemas import ArgumentCheck
from interhub.agent_cards import Capability, Json, JsonObject, Kind
from interhub.hub.service import Hub
from interhub.registry import Agent

from .content import LISTED_OUTPUT_SCHEMA, passed_on

log = structlog.get_logger()

MAX_NAME = 64
"""Longest tool name that every client takes; the models behind them take no more."""
SCHEME = "interhub://"
X_MCP_HEADER = "x-mcp-header"

CatalogueMode: TypeAlias = Literal["auto", "all", "search"]
"""What is listed of the agents' tools: all, none (they are reached by `find` and `call`), or by their number."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_ODD = re.compile(r"[^A-Za-z0-9_-]+")


def plain_name(agent_id: str, name: str) -> str | None:
    """Return `{agent_id}__{name}`, or None when that is too long or holds what a name may not."""
    whole = f"{agent_id}__{name}"
    return whole if len(whole) <= MAX_NAME and _PLAIN.fullmatch(name) else None


def shortened_name(agent_id: str, kind: Kind, name: str, *, turn: int = 0) -> str:
    """Return a name of the allowed form that stays the same for the same capability: a readable start and a digest."""
    identity = f"{kind}\0{name}" + (f"\0{turn}" if turn else "")
    suffix = sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    room = MAX_NAME - len(agent_id) - len("__") - len("_") - len(suffix)
    readable = _ODD.sub("_", name)[:room].strip("_-")
    return f"{agent_id}__{readable}_{suffix}" if readable else f"{agent_id}__{suffix}"


def resource_uri(agent_id: str, uri: str) -> str:
    """Return the URI (or URI template) under which the hub offers an agent's: `interhub://{agent_id}/{uri}`.

    The original follows as it stands, so that a template still expands to what its server expects, and the way back
    is to take the prefix off.
    """
    return f"{SCHEME}{agent_id}/{uri}"


def split_uri(uri: str) -> tuple[str, str] | None:
    """Return agent id and original URI of one of the hub's; None when it is none."""
    if not uri.startswith(SCHEME):
        return None
    agent_id, slash, original = uri[len(SCHEME) :].partition("/")
    return (agent_id, original) if agent_id and slash and original else None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One capability of one agent, under its name in the catalogue."""

    name: str
    agent: Agent
    capability: Capability

    @cached_property
    def arguments(self) -> ArgumentCheck:
        """Checks a call's arguments."""
        return ArgumentCheck(self.capability.input_schema, label=self.name)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What one tenant's agents offer, as it was when it was built. Built once for each change of the agents."""

    agents: tuple[Agent, ...]
    generation: int = 0
    tools: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    """Tools and skills by name, in the order they are listed."""
    prompts: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    resources: tuple[Entry, ...] = ()
    templates: tuple[Entry, ...] = ()

    @cached_property
    def names(self) -> Mapping[tuple[str, Kind, str], str]:
        """The tool's name for an agent id, kind and capability name."""
        return {
            (entry.agent.id, entry.capability.kind, entry.capability.name): name for name, entry in self.tools.items()
        }

    @cached_property
    def tool_list(self) -> tuple[types.Tool, ...]:
        """The tools as they are listed."""
        return tuple(_tool(entry) for entry in self.tools.values())

    @cached_property
    def prompt_list(self) -> tuple[types.Prompt, ...]:
        """The prompts as they are listed."""
        return tuple(_prompt(entry) for entry in self.prompts.values())

    @cached_property
    def resource_list(self) -> tuple[types.Resource, ...]:
        """The resources as they are listed."""
        return tuple(_resource(entry) for entry in self.resources)

    @cached_property
    def template_list(self) -> tuple[types.ResourceTemplate, ...]:
        """The resource templates as they are listed."""
        return tuple(_template(entry) for entry in self.templates)

    def find_resource(self, uri: str) -> tuple[Entry, JsonObject] | None:
        """Return who offers a URI, and the template's variables where a template does.

        A URI without our prefix (a tool's `_meta` may name one) is found when exactly one agent offers it.
        """
        ours = split_uri(uri)
        if ours is None:
            found = [entry for entry in self.resources if entry.capability.name == uri]
            return (found[0], {}) if len(found) == 1 else None
        agent_id, original = ours
        for entry in self.resources:
            if entry.agent.id == agent_id and entry.capability.name == original:
                return entry, {}
        for entry in self.templates:
            if entry.agent.id != agent_id:
                continue
            try:
                variables = UriTemplate.parse(entry.capability.name).match(original)
            except InvalidUriTemplate:
                continue
            if variables is not None:
                return entry, variables
        return None


def build(agents: Iterable[Agent], *, generation: int = 0) -> Catalogue:
    """Name everything that the agents offer. The same agents give the same names, in the same order."""
    ordered = tuple(sorted(agents, key=lambda agent: agent.id))
    tools: dict[str, Entry] = {}
    prompts: dict[str, Entry] = {}
    resources: list[Entry] = []
    templates: list[Entry] = []
    for agent in ordered:
        of_kind = {kind: [each for each in agent.card.capabilities if each.kind is kind] for kind in Kind}
        tools.update(_named(agent, [*of_kind[Kind.SKILL], *of_kind[Kind.TOOL]]))
        prompts.update(_named(agent, of_kind[Kind.PROMPT]))
        resources += [_at_uri(agent, each) for each in of_kind[Kind.RESOURCE]]
        templates += [_at_uri(agent, each) for each in of_kind[Kind.RESOURCE_TEMPLATE]]
    return Catalogue(
        agents=ordered,
        generation=generation,
        tools=tools,
        prompts=prompts,
        resources=tuple(resources),
        templates=tuple(templates),
    )


class Catalogues:
    """The catalogue of each tenant, built anew only after a change."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._known: dict[str, Catalogue] = {}
        self.generation = 0
        """Another number after every change of anybody's agents."""

    async def of(self, principal: Principal) -> Catalogue:
        """Return what the caller's agents offer."""
        known = self._known.get(principal.tenant)
        if known is not None:
            return known
        generation = self.generation
        catalogue = build(await self._hub.agents(principal))
        if generation == self.generation:  # else something changed while the agents were read
            self._known[principal.tenant] = catalogue
        return catalogue

    def forget(self, tenant: str) -> None:
        """Take note that a tenant's agents changed."""
        self.generation += 1
        self._known.pop(tenant, None)


def _at_uri(agent: Agent, capability: Capability) -> Entry:
    return Entry(name=resource_uri(agent.id, capability.name), agent=agent, capability=capability)


def _named(agent: Agent, capabilities: Sequence[Capability]) -> dict[str, Entry]:
    # Plain names are given first, so that no shortened name can take one from its owner.
    taken: dict[str, Capability] = {}
    odd: list[Capability] = []
    for capability in capabilities:
        plain = plain_name(agent.id, capability.name)
        if plain is None or plain in taken:
            odd.append(capability)
        else:
            taken[plain] = capability
    for capability in odd:
        turn = 0
        while (name := shortened_name(agent.id, capability.kind, capability.name, turn=turn)) in taken:
            turn += 1
        taken[name] = capability
    by_identity = {id(capability): name for name, capability in taken.items()}
    return {
        by_identity[id(capability)]: Entry(name=by_identity[id(capability)], agent=agent, capability=capability)
        for capability in capabilities
    }


def _tool(entry: Entry) -> types.Tool:
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


def legacy_tool(tool: types.Tool) -> types.Tool:
    """Return a tool as the legacy era can say it: an output schema only where it is of type object."""
    if tool.output_schema is None or tool.output_schema.get("type") == "object":
        return tool
    return tool.model_copy(update={"output_schema": None})


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
