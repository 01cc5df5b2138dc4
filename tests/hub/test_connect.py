import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interhub.hub.connect import (
    Client,
    ClientConfigUnusable,
    clients,
    connect,
    connected,
    disconnect,
    entry,
    own_command,
    write,
)

NAMES = ["claude-desktop", "claude-code", "cursor", "vscode"]

FILES = {
    "an empty object": "{}",
    "no servers yet": '{\n  "theme": "dark"\n}\n',
    "an empty section": '{"mcpServers": {}, "servers": {}}\n',
    "others on one line": '{"mcpServers": {"a": {"command": "x"}}, "servers": {"a": {"command": "x"}}}',
    "others, tabs": '{\n\t"mcpServers": {\n\t\t"a": {"command": "x"}\n\t},\n\t"servers": {\n\t\t"a": {}\n\t}\n}\n',
    "windows line ends and a byte order mark": '\ufeff{\r\n  "mcpServers": {\r\n    "a": {}\r\n  }\r\n}\r\n',
    "nothing in it": "",
    "odd spacing": '{ "servers" :{ "a":1 ,\n\n "b" : 2\n} , "mcpServers"\n:\n{\n}\n}',
}


def _client(home: Path, name: str) -> Client:
    return clients(home=home, platform="linux", env={})[name]


def _entry(client: Client, home: Path) -> dict[str, object]:
    return dict(entry(client, home / "data"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", FILES.values(), ids=FILES.keys())
def test_connecting_and_removing_gives_back_every_byte(tmp_path: Path, name: str, before: str) -> None:
    client = _client(tmp_path, name)
    client.file.parent.mkdir(parents=True, exist_ok=True)
    client.file.write_bytes(before.encode())
    client.file.chmod(0o640)

    added = connect(client, entry(client, tmp_path / "data"))
    assert client.file.read_bytes() == before.encode(), "nothing is written before it is asked for"
    backup = write(added)

    written = json.loads(client.file.read_bytes().decode("utf-8-sig"))
    assert written[client.section]["interhub"] == _entry(client, tmp_path)
    old = json.loads(before.removeprefix("\ufeff") or "{}")
    assert {**old, client.section: {**old.get(client.section, {}), "interhub": _entry(client, tmp_path)}} == written
    assert client.file.stat().st_mode & 0o777 == 0o640
    assert backup is not None
    assert backup.read_bytes() == before.encode()
    assert connected(client)
    assert connect(client, entry(client, tmp_path / "data")).is_none

    write(disconnect(client))
    assert client.file.read_bytes() == before.encode()
    assert disconnect(client).is_none


@pytest.mark.parametrize("name", NAMES)
def test_where_there_was_no_file_there_is_none_afterwards(tmp_path: Path, name: str) -> None:
    client = _client(tmp_path, name)
    assert write(connect(client, entry(client, tmp_path))) is None
    assert json.loads(client.file.read_text())[client.section]["interhub"]["args"][-1] == "mcp"
    write(disconnect(client))
    assert not client.file.exists()


def test_what_somebody_else_changed_meanwhile_stays(tmp_path: Path) -> None:
    client = _client(tmp_path, "cursor")
    client.file.parent.mkdir(parents=True)
    client.file.write_text('{"mcpServers": {"a": {}}}')
    write(connect(client, entry(client, tmp_path)))
    changed = json.loads(client.file.read_text())
    changed["mcpServers"]["b"] = {}
    client.file.write_text(json.dumps(changed))
    write(disconnect(client))
    assert json.loads(client.file.read_text()) == {"mcpServers": {"a": {}, "b": {}}}


def test_another_data_directory_replaces_the_entry_and_is_undone_all_the_same(tmp_path: Path) -> None:
    client = _client(tmp_path, "claude-code")
    client.file.write_text('{"numStartups": 3}')
    write(connect(client, entry(client, tmp_path / "one")), now=datetime(2026, 1, 1, tzinfo=UTC))
    write(connect(client, entry(client, tmp_path / "two")), now=datetime(2026, 1, 2, tzinfo=UTC))
    assert str(tmp_path / "two") in client.file.read_text()
    write(disconnect(client))
    assert client.file.read_text() == '{"numStartups": 3}'


def test_comments_are_kept_where_the_client_allows_them(tmp_path: Path) -> None:
    client = _client(tmp_path, "vscode")
    client.file.parent.mkdir(parents=True)
    text = '{\n  // mine\n  "servers": {\n    "a": {}, // one\n  },\n}\n'
    client.file.write_text(text)
    write(connect(client, entry(client, tmp_path)))
    assert "// mine" in client.file.read_text()
    assert "// one\n" in client.file.read_text()
    write(disconnect(client))
    assert client.file.read_text() == text


@pytest.mark.parametrize("name", ["claude-desktop", "claude-code", "cursor"])
@pytest.mark.parametrize("text", ['{"mcpServers": {', "{ // hello\n}", '{"mcpServers": []}', "[]", "\xff"])
def test_a_broken_file_is_refused_with_its_place_and_left_as_it_is(tmp_path: Path, name: str, text: str) -> None:
    client = _client(tmp_path, name)
    client.file.parent.mkdir(parents=True, exist_ok=True)
    client.file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ClientConfigUnusable, match="was left as it is"):
        connect(client, entry(client, tmp_path))
    assert client.file.read_bytes() == text.encode("latin-1")


def test_a_linked_file_stays_linked(tmp_path: Path) -> None:
    client = _client(tmp_path, "cursor")
    client.file.parent.mkdir(parents=True)
    (tmp_path / "dotfiles.json").write_text("{}")
    client.file.symlink_to(tmp_path / "dotfiles.json")
    write(connect(client, entry(client, tmp_path)))
    assert client.file.is_symlink()
    write(disconnect(client))
    assert (tmp_path / "dotfiles.json").read_text() == "{}"


def test_the_diff_shows_what_is_added(tmp_path: Path) -> None:
    client = _client(tmp_path, "cursor")
    change = connect(client, entry(client, tmp_path))
    assert change.diff.startswith("--- /dev/null\n")
    assert '+    "interhub": {' in change.diff


def test_the_entry_starts_this_interhub_by_absolute_path(tmp_path: Path) -> None:
    command = own_command()
    assert Path(command[0]).is_absolute()
    wanted = entry(_client(tmp_path, "vscode"), tmp_path, config=tmp_path / "hub.toml")
    assert wanted["type"] == "stdio"
    assert wanted["args"] == [
        *command[1:],
        "--data-dir",
        str(tmp_path),
        "--config",
        str(tmp_path / "hub.toml"),
        "mcp",
    ]


@pytest.mark.parametrize(
    ("platform", "env", "files"),
    [
        (
            "linux",
            {},
            [
                ".config/Claude/claude_desktop_config.json",
                ".claude.json",
                ".cursor/mcp.json",
                ".config/Code/User/mcp.json",
            ],
        ),
        (
            "darwin",
            {},
            [
                "Library/Application Support/Claude/claude_desktop_config.json",
                ".claude.json",
                ".cursor/mcp.json",
                "Library/Application Support/Code/User/mcp.json",
            ],
        ),
        (
            "win32",
            {},
            [
                "AppData/Roaming/Claude/claude_desktop_config.json",
                ".claude.json",
                ".cursor/mcp.json",
                "AppData/Roaming/Code/User/mcp.json",
            ],
        ),
    ],
)
def test_each_platform_has_its_places(platform: str, env: dict[str, str], files: list[str]) -> None:
    home = Path("/home/me")
    assert [client.file for client in clients(home=home, platform=platform, env=env).values()] == [
        home / file for file in files
    ]


def test_the_environment_moves_the_places() -> None:
    found = clients(
        home=Path("/home/me"), platform="linux", env={"XDG_CONFIG_HOME": "/cfg", "CLAUDE_CONFIG_DIR": "/claude"}
    )
    assert found["claude-desktop"].file == Path("/cfg/Claude/claude_desktop_config.json")
    assert found["claude-code"].file == Path("/claude/.claude.json")


def test_a_project_has_files_of_its_own() -> None:
    found = clients(project=Path("/p"), home=Path("/home/me"), platform="linux", env={})
    assert [str(client.file) for client in found.values()] == [
        "/p/.mcp.json",
        "/p/.cursor/mcp.json",
        "/p/.vscode/mcp.json",
    ]
