"""What an MCP server offers, read from its lists into a card. Definitions are kept as they came."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import anyio
import structlog
from mcp import MCPError
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from mcp_types import METHOD_NOT_FOUND, SERVER_INFO_META_KEY

from interhub.adapters.errors import ProtocolViolation, RemoteRefused, RemoteTimeout
from interhub.adapters.exact_json import write_json
from interhub.agent_cards import AgentCard, Capability, Endpoint, Json, JsonObject, Kind

from .session import McpSession

MAX_PAGES = 200
MAX_ITEMS = 20_000
MAX_BYTES = 16 * 1024 * 1024
"""Most that all lists of one server may hold together, as JSON."""
MAX_PAGED_S = 60.0
"""How long all pages together may take, over what one may: a server that always has one more is given up."""

log = structlog.get_logger()


async def read_card(session: McpSession, endpoint: Endpoint, label: str, *, timeout_s: float) -> AgentCard:
    """List everything and return the card. Every page may take `timeout_s`.

    Raises:
        ProtocolViolation: a list is not one, has no end or too much in it, or an item has no name.
        AdapterError: the server could not be asked.
    """
    whole_s = timeout_s + MAX_PAGED_S
    with anyio.move_on_after(whole_s):
        return await _read_card(session, endpoint, label, timeout_s=timeout_s)
    raise RemoteTimeout(label, whole_s)


async def _read_card(session: McpSession, endpoint: Endpoint, label: str, *, timeout_s: float) -> AgentCard:
    offered = session.capabilities
    found: list[Capability] = []
    room = _Room(label)
    if "tools" in offered:
        found += [_tool(item, label) for item in await _list(session, "tools/list", "tools", room, timeout_s)]
    if "prompts" in offered:
        found += [_prompt(item, label) for item in await _list(session, "prompts/list", "prompts", room, timeout_s)]
    if "resources" in offered:
        found += [
            _resource(item, label) for item in await _list(session, "resources/list", "resources", room, timeout_s)
        ]
        templates = await _list(session, "resources/templates/list", "resourceTemplates", room, timeout_s)
        found += [_template(item, label) for item in templates]
    info = server_info(session.server)
    icons = info.get("icons")
    icon = icons[0] if isinstance(icons, Sequence) and not isinstance(icons, str) and icons else None
    return AgentCard(
        name=_str(info, "title") or _str(info, "name") or label,
        description=_str(info, "description") or _first_lines(_str(session.server, "instructions")),
        version=_str(info, "version"),
        documentation_url=_str(info, "websiteUrl"),
        icon_url=_str(icon, "src") if isinstance(icon, Mapping) else "",
        capabilities=tuple(_unique(found)),
        interfaces=(endpoint,),
        instructions=_str(session.server, "instructions"),
        raw=session.server,
    )


def server_info(answer: JsonObject) -> JsonObject:
    """Return the server's name and version, from an `initialize` or a `server/discover` answer."""
    info = answer.get("serverInfo")
    if not isinstance(info, Mapping):
        meta = answer.get("_meta")
        info = meta.get(SERVER_INFO_META_KEY) if isinstance(meta, Mapping) else None
    return info if isinstance(info, Mapping) else {}


class _Room:
    """How much a server's lists may still hold."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._left = MAX_BYTES

    def take(self, items: list[object]) -> None:
        """Count a page in.

        Raises:
            ProtocolViolation: it is too much.
        """
        self._left -= len(write_json(items))
        if self._left < 0:
            raise ProtocolViolation(self.label, f"its lists hold more than {MAX_BYTES // 1024 // 1024} MiB")


async def _list(session: McpSession, method: str, key: str, room: "_Room", timeout_s: float) -> list[dict[str, Any]]:
    label = room.label
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        try:
            page = await session.request(method, {"cursor": cursor} if cursor is not None else {}, timeout_s=timeout_s)
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:  # it promised the list, and has none: nothing is in it
                return items
            raise RemoteRefused(label, f"{method}: {error.message}", (), error.code) from error
        listed = page.get(key)
        if not isinstance(listed, list):
            raise ProtocolViolation(label, f"its answer to {method} has no list of {key}")
        for item in cast("list[object]", listed):
            if not isinstance(item, dict):
                raise ProtocolViolation(label, f"its {key} hold {type(item).__name__} where a definition is expected")
            items.append(cast("dict[str, Any]", item))
        room.take(cast("list[object]", listed))
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str):
            return items
        if cursor in seen or len(items) > MAX_ITEMS:
            break
        seen.add(cursor)
    raise ProtocolViolation(label, f"its {method} has no end (over {len(items)} items, or a cursor that repeats)")


def _tool(item: dict[str, Any], label: str) -> Capability:
    title = _str(item, "title") or _str(_object(item.get("annotations")) or {}, "title")
    return Capability(
        name=_named(item, "name", "tool", label),
        kind=Kind.TOOL,
        title=title,
        description=_str(item, "description"),
        input_schema=_object(item.get("inputSchema")) or {"type": "object"},
        output_schema=_object(item.get("outputSchema")),
        raw=item,
    )


def _prompt(item: dict[str, Any], label: str) -> Capability:
    properties: dict[str, Json] = {}
    required: list[str] = []
    for listed in item.get("arguments") or ():
        argument = _object(listed)
        if argument is None:
            raise ProtocolViolation(label, f"the prompt {item.get('name')!r} has an argument that is no object")
        name = _named(argument, "name", "prompt argument", label)
        properties[name] = {"type": "string", **({"description": d} if (d := _str(argument, "description")) else {})}
        if argument.get("required") is True:
            required.append(name)
    return Capability(
        name=_named(item, "name", "prompt", label),
        kind=Kind.PROMPT,
        title=_str(item, "title"),
        description=_str(item, "description"),
        input_schema=_arguments(properties, required),
        raw=item,
    )


def _resource(item: dict[str, Any], label: str) -> Capability:
    media_type = _str(item, "mimeType")
    return Capability(
        name=_named(item, "uri", "resource", label),
        kind=Kind.RESOURCE,
        title=_str(item, "title") or _str(item, "name"),
        description=_str(item, "description"),
        input_schema=_arguments({}, []),
        output_modes=(media_type,) if media_type else (),
        raw=item,
    )


def _template(item: dict[str, Any], label: str) -> Capability:
    name = _named(item, "uriTemplate", "resource template", label)
    try:
        variables = [variable.name for variable in UriTemplate.parse(name).variables]
    except InvalidUriTemplate as error:
        log.warning("mcp_template_unreadable", agent=label, template=name, why=str(error))
        variables = []
    media_type = _str(item, "mimeType")
    return Capability(
        name=name,
        kind=Kind.RESOURCE_TEMPLATE,
        title=_str(item, "title") or _str(item, "name"),
        description=_str(item, "description"),
        input_schema=_arguments({variable: {"type": "string"} for variable in variables}, variables),
        output_modes=(media_type,) if media_type else (),
        raw=item,
    )


def _arguments(properties: Mapping[str, Json], required: Sequence[str]) -> JsonObject:
    schema: dict[str, Json] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return schema


def _unique(found: Sequence[Capability]) -> list[Capability]:
    """Keep the first of each name and kind: a server that lists one twice still has the others."""
    kept: dict[tuple[Kind, str], Capability] = {}
    for capability in found:
        kept.setdefault((capability.kind, capability.name), capability)
    return list(kept.values())


def _named(item: Mapping[str, Any], key: str, what: str, label: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise ProtocolViolation(label, f"it lists a {what} without a {key}")
    return value


def _object(value: object) -> JsonObject | None:
    return cast("JsonObject", value) if isinstance(value, dict) else None


def _str(item: Mapping[str, Any] | Mapping[str, Json], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _first_lines(text: str) -> str:
    return text.strip().split("\n\n")[0][:500]
