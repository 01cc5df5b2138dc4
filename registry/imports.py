"""MCP servers out of other programs' files: `mcp.json`, `claude_desktop_config.json`, `.mcp.json`, VS Code's.

All of them map names to servers, under `mcpServers` (Claude, Cursor, Windsurf, Gemini CLI) or `servers` (VS Code, also
inside `mcp` of its settings). VS Code writes comments and trailing commas, so these are taken everywhere. A2A agents
may stand beside them, with `"type": "a2a"`, `url`, and `headers` or `credentials`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from interhub.agent_cards import Binding, Endpoint, Json, JsonObject

from .errors import ImportUnreadable
from .names import MAX_ID_LENGTH, slug

MAX_IMPORT_BYTES = 8 * 1024 * 1024
"""A file longer than this is taken for none of these, though some keep much else besides (`~/.claude.json`)."""

_HTTP_TYPES = frozenset({"http", "streamablehttp"})
_COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA_OR_STRING = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])', re.DOTALL)
_PLACEHOLDER = re.compile(r"\$\{(env|input|command|config):([^}]*)\}|\$\{(workspaceFolder|userHome)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Mistake:
    """One entry, or part of one, that cannot be imported."""

    entry: str
    """Place: `mcpServers.github.args[1]`."""
    what: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What a file names."""

    servers: tuple[tuple[str, Endpoint], ...]
    """Ids made of the entries' names, no two the same, and where each is reached; in the file's order."""
    mistakes: tuple[Mistake, ...] = ()
    """Entries that were left out, and why. The others can be used all the same."""


def read_servers(document: bytes, *, source: str, folder: Path | None = None, home: Path | None = None) -> Imported:
    """Read the MCP servers that a file names.

    `source` names the file in errors. `folder` stands for VS Code's `${workspaceFolder}` and `home` for `${userHome}`;
    an entry that has one which is not given is a mistake. `${env:NAME}` becomes `${NAME}`, and nothing else is
    expanded: secrets that the file refers to stay out of the registry.

    Raises:
        ImportUnreadable: the file is not JSON, or names no servers in any of the known ways.
    """
    key, entries = _entries(_parse(document, source), source)
    places = {"workspaceFolder": folder, "userHome": home}
    servers: list[tuple[str, Endpoint]] = []
    mistakes: list[Mistake] = []
    taken: set[str] = set()
    for name, entry in entries.items():
        reader = _Entry(f"{key}.{name}", entry, places)
        endpoint = reader.endpoint()
        mistakes.extend(reader.mistakes)
        if endpoint is not None and not reader.mistakes:
            agent_id = _unique(slug(name), taken)
            taken.add(agent_id)
            servers.append((agent_id, endpoint))
    return Imported(servers=tuple(servers), mistakes=tuple(mistakes))


def _parse(document: bytes, source: str) -> JsonObject:
    if len(document) > MAX_IMPORT_BYTES:
        raise ImportUnreadable(source, f"it is {len(document)} bytes long, more than such a file can be")
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportUnreadable(source, "it is not UTF-8 text") from error
    # What is cut out becomes as many spaces, so that places in errors are those of the file.
    text = _COMMENT_OR_STRING.sub(lambda found: _keep_string(found.group()), text)
    text = _TRAILING_COMMA_OR_STRING.sub(lambda found: _keep_string(found.group()), text)
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        why = error.msg.split(":")[0]
        raise ImportUnreadable(source, f"it is not JSON: line {error.lineno}, column {error.colno}: {why}") from error
    if not isinstance(value, Mapping):
        raise ImportUnreadable(source, "it is not a JSON object")
    return value


def _keep_string(found: str) -> str:
    return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)


def _entries(document: JsonObject, source: str) -> tuple[str, JsonObject]:
    inner = document.get("mcp")
    candidates: list[tuple[str, Json]] = [
        ("mcpServers", document.get("mcpServers")),
        ("servers", document.get("servers")),
    ]
    if isinstance(inner, Mapping):
        candidates += [("mcp.servers", inner.get("servers")), ("mcp.mcpServers", inner.get("mcpServers"))]
    for key, entries in candidates:
        if isinstance(entries, Mapping):
            return key, entries
        if entries is not None:
            raise ImportUnreadable(source, f"{key} must be an object that maps names to servers")
    found = ", ".join(sorted(document)[:5]) or "nothing"
    raise ImportUnreadable(source, f"it has neither mcpServers nor servers (it has {found})")


def _unique(wanted: str, taken: set[str]) -> str:
    agent_id, number = wanted, 2
    while agent_id in taken:
        mark = f"-{number}"
        agent_id, number = f"{wanted[: MAX_ID_LENGTH - len(mark)].rstrip('-')}{mark}", number + 1
    return agent_id


class _Entry:
    """One entry of a file, read as an endpoint; what is wrong with it gathers in `mistakes`."""

    def __init__(self, path: str, entry: Json, places: Mapping[str, Path | None]) -> None:
        self.mistakes: list[Mistake] = []
        self._path = path
        self._entry = entry
        self._places = places

    def endpoint(self) -> Endpoint | None:
        entry = self._entry
        if not isinstance(entry, Mapping):
            self._wrong("", "must be an object with `command` or `url`")
            return None
        if entry.get("disabled") is True or entry.get("enabled") is False:
            self._wrong("", "is disabled there; enable it to import it")
            return None
        kind = entry.get("type", entry.get("transport", ""))
        kind = "".join(filter(str.isalnum, kind)).lower() if isinstance(kind, str) else "?"
        address = next((name for name in ("url", "serverUrl", "httpUrl") if entry.get(name)), "")
        command = entry.get("command")
        if command and address:
            self._wrong("", f"has both `command` and `{address}`; keep one")
            return None
        if command or (kind == "stdio" and not address):
            if kind not in ("", "stdio"):
                self._wrong(".type", f"is {entry.get('type')!r}, but a server with `command` is stdio")
                return None
            return self._process(entry)
        if address:
            if kind == "sse":
                return self._network(entry, address, Binding.MCP_SSE)
            if kind == "" or kind in _HTTP_TYPES:
                return self._network(entry, address, Binding.MCP_HTTP)
            if kind == "a2a":
                return self._a2a(entry, address)
            self._wrong(".type", f"is {entry.get('type')!r}; with `{address}` it is http, sse or a2a")
            return None
        self._wrong("", "needs `command` (a program) or `url` (an address)")
        return None

    def _process(self, entry: JsonObject) -> Endpoint | None:
        program = self._text(entry, "command")
        arguments = self._arguments(entry.get("args"))
        if program and not arguments and re.search(r"\s-", program):
            self._wrong(".command", f"is a command line ({program!r}); put its arguments into `args`")
            return None
        if not program and not self.mistakes:
            self._wrong(".command", "is missing")
            return None
        if entry.get("envFile"):
            self._wrong(".envFile", "is not read; write the variables into `env` as ${NAME}")
        return Endpoint(
            binding=Binding.MCP_STDIO,
            command=(program, *arguments),
            env=self._texts(entry, "env"),
            cwd=self._text(entry, "cwd"),
        )

    def _network(self, entry: JsonObject, address: str, binding: Binding) -> Endpoint | None:
        url = self._text(entry, address)
        if url and not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
            self._wrong(f".{address}", f"is {url!r}, not an http(s) address")
            return None
        return Endpoint(binding=binding, url=url, headers=self._texts(entry, "headers"))

    def _a2a(self, entry: JsonObject, address: str) -> Endpoint | None:
        """Read our own addition to these files: an A2A agent, with credentials by the schemes of its card."""
        endpoint = self._network(entry, address, Binding.A2A_JSONRPC)
        credentials = self._texts(entry, "credentials")
        if endpoint is None or not credentials:
            return endpoint
        return replace(endpoint, options={"credentials": credentials})

    def _text(self, entry: JsonObject, name: str) -> str:
        value = entry.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self._wrong(f".{name}", "must be text")
            return ""
        return self._filled(f".{name}", value)

    def _arguments(self, value: Json) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            self._wrong(".args", "must be a list")
            return ()
        return tuple(self._scalar(f".args[{position}]", item) for position, item in enumerate(value))

    def _texts(self, entry: JsonObject, name: str) -> dict[str, str]:
        value = entry.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._wrong(f".{name}", "must be an object that maps names to texts")
            return {}
        return {key: self._scalar(f".{name}.{key}", item) for key, item in value.items() if item is not None}

    def _scalar(self, place: str, value: Json) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (str, int, float)):
            return self._filled(place, str(value))
        self._wrong(place, "must be text or a number")
        return ""

    def _filled(self, place: str, value: str) -> str:
        def fill(found: re.Match[str]) -> str:
            kind, name, folder = found.groups()
            if kind == "env" and _VARIABLE.fullmatch(name):
                return f"${{{name}}}"
            path = self._places.get(folder)
            if path is not None:
                return str(path)
            self._wrong(
                place, f"has {found.group()}, which only its own program can fill in; write it out, or use ${{NAME}}"
            )
            return ""

        return _PLACEHOLDER.sub(fill, value)

    def _wrong(self, place: str, what: str) -> None:
        self.mistakes.append(Mistake(f"{self._path}{place}", what))
