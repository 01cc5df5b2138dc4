"""The headers that repeat what a modern request's body says, so that whoever routes it need not read the body.

MCP 2026-07-28, basic/transports/streamable-http, standard and custom headers. A stdio host sends none; its bridge does.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, cast

Object: TypeAlias = Mapping[str, Any]

ANNOTATION = "x-mcp-header"

_NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


class RequestHeaders:
    """Makes the headers of requests. It learns from the lists of tools that pass which arguments are repeated."""

    def __init__(self) -> None:
        self._promised: dict[str, dict[tuple[str, ...], str]] = {}

    def learn(self, result: Object) -> None:
        """Take note of a `tools/list` result."""
        tools: object = result.get("tools")
        for tool in objects(tools):
            self._promised[str(tool.get("name"))] = dict(_annotated(tool.get("inputSchema"), ()))

    def of(self, method: str, params: Object, version: str) -> dict[str, str]:
        """Return the headers of a request."""
        headers = {"mcp-protocol-version": header_value(version), "mcp-method": header_value(method)}
        name: object = params.get(_NAMED.get(method, ""))
        if isinstance(name, str):
            headers["mcp-name"] = header_value(name)
        if method == "tools/call" and isinstance(name, str):
            for path, token in self._promised.get(name, {}).items():
                text = _scalar(_at(params.get("arguments"), path))
                if text is not None:
                    headers[f"mcp-param-{token.lower()}"] = header_value(text)
        return headers


def header_value(value: str) -> str:
    """Write a value as a header can hold it: as it stands where possible, else in base64 with its marks."""
    plain = value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?base64?")
    return value if plain else f"=?base64?{b64encode(value.encode('utf-8', 'surrogatepass')).decode('ascii')}?="


def _annotated(schema: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the annotated properties by their path; only those that are reached through `properties` count."""
    if not isinstance(schema, dict):
        return
    properties = cast("Object", schema).get("properties")
    if not isinstance(properties, dict):
        return
    for name, field in cast("Object", properties).items():
        if isinstance(field, dict):
            token = cast("Object", field).get(ANNOTATION)
            if isinstance(token, str):
                yield (*path, name), token
            yield from _annotated(cast("object", field), (*path, name))


def _at(value: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = cast("Object", value).get(key)
    return value


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def objects(value: object) -> list[Object]:
    """Return the objects among the items of a JSON array; none of anything else."""
    return (
        [cast("Object", item) for item in cast("list[object]", value) if isinstance(item, dict)]
        if isinstance(value, list)
        else []
    )
