"""Enters the hub in the configuration of an MCP client, shows the change before, and can undo it to the byte."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path

from interhub.agent_cards import Json, JsonObject

from .errors import Unusable
from .jsonc import NotJson, parse, with_member, without_member

DEFAULT_NAME = "interhub"
_BACKUP = ".interhub-backup-"


class ClientConfigUnusable(Unusable):
    """A client's configuration cannot be read or changed; it was left as it is."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(file, why)
        self.file = file
        self.why = why

    def __str__(self) -> str:
        return f"{self.file} was left as it is: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Client:
    """An MCP client and its configuration file."""

    name: str
    title: str
    file: Path
    section: str
    """The object in the file that holds the servers."""
    typed: bool = False
    """Its entries say `"type": "stdio"`."""
    comments: bool = False
    """Its file may have comments and trailing commas."""
    then: str
    """What to do for the client to see the change."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What would become of a file. None stands for no file."""

    client: Client
    before: bytes | None
    after: bytes | None

    @property
    def is_none(self) -> bool:
        """True when everything is as wanted already."""
        return self.before == self.after

    @property
    def diff(self) -> str:
        """The change as a unified diff."""
        file = str(self.client.file)
        lines = unified_diff(
            (self.before or b"").decode(errors="replace").splitlines(),
            (self.after or b"").decode(errors="replace").splitlines(),
            file if self.before is not None else "/dev/null",
            file if self.after is not None else "/dev/null",
            lineterm="",
        )
        return "\n".join(lines)


def clients(
    *,
    project: Path | None = None,
    home: Path | None = None,
    platform: str = sys.platform,
    env: Mapping[str, str] = os.environ,
) -> dict[str, Client]:
    """Return the clients we know, by name, with the user's own configuration file or that of a project folder."""
    home = home or Path.home()
    match platform:
        case "darwin":
            applications = home / "Library" / "Application Support"
        case "win32":
            applications = Path(env.get("APPDATA") or home / "AppData" / "Roaming")
        case _:
            applications = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    claude_code = Path(env["CLAUDE_CONFIG_DIR"]) if env.get("CLAUDE_CONFIG_DIR") else home
    known = [
        Client(
            name="claude-desktop",
            title="Claude Desktop",
            file=applications / "Claude" / "claude_desktop_config.json",
            section="mcpServers",
            then="quit Claude Desktop and start it again",
        ),
        Client(
            name="claude-code",
            title="Claude Code",
            file=project / ".mcp.json" if project else claude_code / ".claude.json",
            section="mcpServers",
            typed=True,
            then="start a new session of Claude Code; /mcp there shows the hub",
        ),
        Client(
            name="cursor",
            title="Cursor",
            file=project / ".cursor" / "mcp.json" if project else home / ".cursor" / "mcp.json",
            section="mcpServers",
            then="switch the server on under Cursor Settings > MCP",
        ),
        Client(
            name="vscode",
            title="VS Code",
            file=project / ".vscode" / "mcp.json" if project else applications / "Code" / "User" / "mcp.json",
            section="servers",
            typed=True,
            comments=True,
            then="run `MCP: List Servers` in VS Code and start the server there",
        ),
    ]
    # Claude Desktop has no project files.
    return {client.name: client for client in known if not (project and client.name == "claude-desktop")}


def entry(client: Client, data_dir: Path, config: Path | None = None) -> JsonObject:
    """Return what the client is to start: `interhub mcp` on the data directory."""
    options = ["--data-dir", str(data_dir)]
    if config is not None:
        options += ["--config", str(config.resolve())]
    command, *arguments = [*own_command(), *options, "mcp"]
    written: dict[str, Json] = {"type": "stdio"} if client.typed else {}
    return {**written, "command": command, "args": arguments}


def own_command() -> list[str]:
    """Return the command line that starts this interhub, by absolute path: clients have a PATH of their own."""
    beside = Path(sys.executable).parent / ("interhub.exe" if sys.platform == "win32" else "interhub")
    if beside.is_file():
        return [str(beside)]
    found = shutil.which("interhub")
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "interhub.hub.cli"]


def connected(client: Client, name: str = DEFAULT_NAME) -> bool:
    """True when the client's configuration has the entry.

    Raises:
        ClientConfigUnusable: the file cannot be read.
    """
    before = _read(client)
    return before is not None and _has(client, before, name)


def connect(client: Client, wanted: JsonObject, name: str = DEFAULT_NAME) -> Change:
    """Return the change that enters the hub; nothing is written yet.

    Raises:
        ClientConfigUnusable: the file cannot be read, or is not what such a file should be.
    """
    before = _read(client)
    return Change(client=client, before=before, after=_entered(client, before, name, wanted))


def disconnect(client: Client, name: str = DEFAULT_NAME) -> Change:
    """Return the change that takes the entry out; nothing is written yet.

    Where nothing else has changed since the entry was made, the file becomes byte for byte what it was before, or is
    removed when there was none.

    Raises:
        ClientConfigUnusable: the file cannot be read, or is not what such a file should be.
    """
    before = _read(client)
    if before is None or not _has(client, before, name):
        return Change(client=client, before=before, after=before)
    present = _present(client, before, name)
    for candidate in (*_backups(client), None):
        if _leads_to(client, candidate, name, present, before):
            return Change(client=client, before=before, after=candidate)
    after = without_member(_text(client, before), (client.section, name), comments=client.comments)
    return Change(client=client, before=before, after=_bytes(before, after))


def write(change: Change, *, now: datetime | None = None) -> Path | None:
    """Make the change; return the backup of what was there, None when there was nothing.

    Raises:
        ClientConfigUnusable: the file cannot be written.
    """
    file = Path(os.path.realpath(change.client.file))  # a linked file (dotfiles) stays linked
    backup: Path | None = None
    try:
        if change.before is not None:
            stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%fZ")
            backup = file.with_name(f"{file.name}{_BACKUP}{stamp}")
            backup.write_bytes(change.before)
            shutil.copymode(file, backup)
        if change.after is None:
            file.unlink(missing_ok=True)
            return backup
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.interhub-{os.getpid()}")
        new.write_bytes(change.after)
        if change.before is not None:
            shutil.copymode(file, new)
        else:
            new.chmod(0o600)
        os.replace(new, file)
    except OSError as error:
        raise ClientConfigUnusable(
            str(file), f"it cannot be written: {(error.strerror or str(error)).lower()}"
        ) from error
    return backup


def _read(client: Client) -> bytes | None:
    try:
        return client.file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClientConfigUnusable(str(client.file), f"it cannot be read: {(error.strerror or '').lower()}") from error


def _backups(client: Client) -> list[bytes]:
    file = Path(os.path.realpath(client.file))
    try:
        names = sorted(
            (path for path in file.parent.iterdir() if path.name.startswith(file.name + _BACKUP)), reverse=True
        )
        return [path.read_bytes() for path in names]
    except OSError:
        return []


def _leads_to(client: Client, earlier: bytes | None, name: str, present: Json, now: bytes) -> bool:
    """True when entering the hub in an earlier content, which had no such entry, gives what is there now."""
    try:
        return not (earlier is not None and _has(client, earlier, name)) and (
            _entered(client, earlier, name, present) == now
        )
    except ClientConfigUnusable:
        return False  # a backup of something else


def _text(client: Client, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ClientConfigUnusable(str(client.file), "it is not UTF-8 text") from error


def _bytes(before: bytes, text: str) -> bytes:
    mark = b"\xef\xbb\xbf"
    return (mark if before.startswith(mark) else b"") + text.encode()


def _has(client: Client, content: bytes, name: str) -> bool:
    try:
        return _present(client, content, name) is not None
    except ClientConfigUnusable:
        raise
    except KeyError:
        return False


def _present(client: Client, content: bytes, name: str) -> Json:
    """Return the entry as it stands; KeyError when there is none."""
    text = _text(client, content)
    if not text.strip():
        raise KeyError(name)
    try:
        servers = parse(text, comments=client.comments).member(client.section)
    except NotJson as error:
        raise _not_json(client, error) from error
    found = servers.node.member(name) if servers is not None else None
    if found is None:
        raise KeyError(name)
    return found.node.value


def _entered(client: Client, before: bytes | None, name: str, wanted: Json) -> bytes:
    if before is None:
        return with_member("{}", (client.section, name), wanted).encode() + b"\n"
    text = _text(client, before)
    try:
        after = with_member(text if text.strip() else "{}\n", (client.section, name), wanted, comments=client.comments)
    except NotJson as error:
        raise _not_json(client, error) from error
    return _bytes(before, after)


def _not_json(client: Client, error: NotJson) -> ClientConfigUnusable:
    return ClientConfigUnusable(str(client.file), f"{error}; mend it there, then try again")
