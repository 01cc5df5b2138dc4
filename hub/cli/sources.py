"""From what `agents add` is given to what the hub is asked: bodies of `POST /api/agents`."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interhub.hub.errors import BadRequest

_ALLOWED = ("allow_private", "allow_bad_signature")
_OF_URLS = (*_ALLOWED, "credentials")
_OBJECT = re.compile(r"(?P<path>.+\.py):(?P<object>[A-Za-z_][\w.]*)")


@dataclass(frozen=True, kw_only=True)
class Given:
    """What stood on the command line."""

    source: str = ""
    command: tuple[str, ...] = ()
    name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    credentials: Mapping[str, str] = field(default_factory=dict[str, str])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    protocol: str = ""
    framework: str = ""
    requirements: str = ""
    allow_private: bool = False
    allow_bad_signature: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One agent to add."""

    title: str
    body: dict[str, Any]
    document: Any = None
    """The parsed file (`supervisor.document.Document`), where its mistakes have lines."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a source stands for: one agent, or all that a file names."""

    wanted: tuple[Wanted, ...]
    left_out: tuple[str, ...] = ()
    """Entries of a file that cannot be used, and why."""


def read(given: Given) -> Read:
    """Find out what is meant.

    Raises:
        BadRequest: nothing that could be added, or options that do not go with it.
        PlanInvalid: a document's syntax is wrong; says the line.
        RegistryError: a file that names servers cannot be read.
    """
    common: dict[str, Any] = {"id": given.name} if given.name else {}
    if given.command:
        if given.source:
            raise BadRequest(f"both {given.source!r} and a command after -- were given", "give one of them")
        _refuse(given, "a command", "headers", "protocol", "framework", "requirements", *_OF_URLS)
        body = {"kind": "command", "command": _runnable(given.command), "env": dict(given.env), "cwd": os.getcwd()}
        return Read(wanted=(Wanted(title=" ".join(given.command), body={**common, **body}),))
    source = given.source
    if not source:
        raise BadRequest("nothing to add was given", "see `interhub agents add --help` for the forms")
    if re.match(r"https?://", source, re.IGNORECASE):
        _refuse(given, "a URL", "env", "framework", "requirements")
        if given.protocol not in ("", "a2a", "mcp"):
            raise BadRequest(f"--protocol is a2a or mcp, not {given.protocol!r}")
        if given.credentials and given.protocol == "mcp":
            raise BadRequest("--credential goes with A2A agents, whose cards name schemes", "give MCP servers --header")
        body = {"kind": "url", "url": source, "headers": dict(given.headers), "protocol": given.protocol}
        allowed: dict[str, Any] = {name: True for name in _ALLOWED if getattr(given, name)}
        if given.credentials:
            allowed["credentials"] = dict(given.credentials)
        return Read(wanted=(Wanted(title=source, body={**common, **body, **allowed}),))
    found = _OBJECT.fullmatch(source)
    if found is not None:
        return Read(wanted=(Wanted(title=source, body={**common, **_python(given, found)}),))
    path = Path(source).expanduser()
    if not path.is_file():
        raise BadRequest(f"{source} is no http(s) URL, and there is no such file", _hint(source))
    if path.suffix == ".py":
        raise BadRequest(
            f"{source} names no object in the file", f"give it as {source}:NAME, for example {source}:graph"
        )
    _refuse(given, "a file", "headers", "env", "protocol", "framework", "requirements", *_OF_URLS)
    return _file(path, common)


def pairs(values: Sequence[str], separator: str, option: str) -> dict[str, str]:
    """Read `NAME{separator}VALUE` options.

    Raises:
        BadRequest: one has no separator or no name.
    """
    read: dict[str, str] = {}
    for value in values:
        name, found, rest = value.partition(separator)
        if not found or not name.strip():
            raise BadRequest(f"{option} {value!r} is not NAME{separator}VALUE")
        read[name.strip()] = rest.strip() if separator == ":" else rest
    return read


def _python(given: Given, found: re.Match[str]) -> dict[str, Any]:
    local = given.framework == "local"
    what = "functions that run in the hub's own process" if local else "a worker"
    _refuse(given, what, "headers", "protocol", *_OF_URLS, *(("env", "requirements") if local else ()))
    path = Path(found["path"]).expanduser().absolute()
    if not path.is_file():
        raise BadRequest(f"there is no file {path}")
    if not given.framework:
        raise BadRequest(
            f"{given.source} needs to know its framework",
            "add --framework langgraph (or crewai, ...; see `interhub workers list`), or local for plain functions",
        )
    target = f"{path}:{found['object']}"
    if local:
        return {"kind": "endpoint", "adapter": "local", "endpoint": {"binding": "LOCAL", "options": {"target": target}}}
    requirements = ""
    if given.requirements:
        file = Path(given.requirements).expanduser().absolute()
        if not file.is_file():
            raise BadRequest(f"there is no requirements file {file}")
        requirements = str(file)
    return {
        "kind": "worker",
        "target": target,
        "framework": given.framework,
        "requirements": requirements,
        "env": dict(given.env),
        "cwd": str(path.parent),
    }


def _file(path: Path, common: dict[str, Any]) -> Read:
    from interhub.hub.supervisor.document import read_document

    content = path.read_bytes()
    if path.suffix in (".yaml", ".yml", ".toml") or _says_kind(content):
        document = read_document(content, source=str(path))
        body = {"kind": "document", "document": document.value, "source_name": str(path)}
        return Read(wanted=(Wanted(title=str(path), body={**common, **body}, document=document),))
    return _import(path, content, common)


def _says_kind(content: bytes) -> bool:
    return re.search(rb'"kind"\s*:\s*"(team|workflow)"', content) is not None


def _import(path: Path, content: bytes, common: dict[str, Any]) -> Read:
    from interhub.agent_cards import Binding
    from interhub.registry.imports import read_servers

    folder = path.absolute().parent
    # VS Code keeps its file in `.vscode` of the folder that `${workspaceFolder}` means.
    workspace = folder.parent if folder.name == ".vscode" else folder
    imported = read_servers(content, source=str(path), folder=workspace, home=Path.home())
    if common and len(imported.servers) > 1:
        raise BadRequest(f"{path} names {len(imported.servers)} servers", "leave --name out: they keep their own names")
    wanted: list[Wanted] = []
    for agent_id, endpoint in imported.servers:
        if endpoint.binding is Binding.A2A_JSONRPC:
            url = {"kind": "url", "id": agent_id, "protocol": "a2a", "url": endpoint.url}
            given = {"headers": dict(endpoint.headers), "credentials": endpoint.options.get("credentials", {})}
            wanted.append(Wanted(title=endpoint.url, body={**url, **given, **common}))
            continue
        shaped = {
            "binding": endpoint.binding.value,
            "url": endpoint.url,
            "command": _runnable(endpoint.command),
            "env": dict(endpoint.env),
            "cwd": endpoint.cwd,
            "headers": dict(endpoint.headers),
        }
        body = {"kind": "endpoint", "id": agent_id, "adapter": "mcp", "endpoint": shaped, **common}
        wanted.append(Wanted(title=endpoint.url or " ".join(endpoint.command), body=body))
    return Read(wanted=tuple(wanted), left_out=tuple(str(mistake) for mistake in imported.mistakes))


def _runnable(command: Sequence[str]) -> list[str]:
    """Return a command with its program by full path: the hub's PATH may be another one than this terminal's."""
    if not command:
        return []
    program, *arguments = command
    found = shutil.which(program)
    return [os.path.abspath(found) if found else program, *arguments]


def _refuse(given: Given, what: str, *options: str) -> None:
    names = {"headers": "--header", "credentials": "--credential", "env": "--env"}
    wrong = [names.get(option, f"--{option.replace('_', '-')}") for option in options if getattr(given, option)]
    if wrong:
        raise BadRequest(f"{' and '.join(wrong)} cannot go with {what}")


def _hint(source: str) -> str:
    if re.match(r"[\w.-]+:\d+(/|$)", source) or re.match(r"[\w-]+(\.[\w-]+)+(/|$)", source):
        return f"for an address, write http://{source} or https://{source}"
    return "give a URL, a file, path.py:object --framework F, or -- and a command"
