"""MCP servers out of other programs' files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.agent_cards import Binding, Endpoint, Json
from interhub.registry import ImportUnreadable
from interhub.registry.imports import read_servers


def test_a_claude_desktop_configuration_is_read() -> None:
    document = {
        "mcpServers": {
            "filesystem": {
                "command": "npx",
                "args": ["-y", "@modelcontextprotocol/server-filesystem", "/home/me"],
                "env": {"LEVEL": 3, "DEBUG": True, "TOKEN": "${TOKEN}", "NOTHING": None},
            },
            "GitHub Remote": {
                "type": "http",
                "url": "https://api.githubcopilot.com/mcp/",
                "headers": {"Authorization": "Bearer ${GITHUB_TOKEN}"},
            },
            "old": {"type": "sse", "url": "http://127.0.0.1:9000/sse"},
        },
        "globalShortcut": "",
    }
    imported = read_servers(json.dumps(document).encode(), source="claude_desktop_config.json")
    assert imported.mistakes == ()
    assert imported.servers == (
        (
            "filesystem",
            Endpoint(
                binding=Binding.MCP_STDIO,
                command=("npx", "-y", "@modelcontextprotocol/server-filesystem", "/home/me"),
                env={"LEVEL": "3", "DEBUG": "true", "TOKEN": "${TOKEN}"},
            ),
        ),
        (
            "git-hub-remote",
            Endpoint(
                binding=Binding.MCP_HTTP,
                url="https://api.githubcopilot.com/mcp/",
                headers={"Authorization": "Bearer ${GITHUB_TOKEN}"},
            ),
        ),
        ("old", Endpoint(binding=Binding.MCP_SSE, url="http://127.0.0.1:9000/sse")),
    )


def test_vs_codes_file_is_read_with_its_comments() -> None:
    document = """\ufeff{
      // servers of this workspace
      "inputs": [],
      "servers": {
        "git": {
          "type": "stdio", "command": "uvx", /* not // here */
          "args": ["mcp-server-git", "--repository", "${workspaceFolder}", "http://not/*a*/comment",],
          "cwd": "${userHome}",
          "env": {"TOKEN": "${env:MY_TOKEN}"},
        },
      },
    }"""
    imported = read_servers(document.encode(), source="mcp.json", folder=Path("/work"), home=Path("/home/me"))
    assert imported.mistakes == ()
    ((name, endpoint),) = imported.servers
    assert name == "git"
    assert endpoint.command == ("uvx", "mcp-server-git", "--repository", "/work", "http://not/*a*/comment")
    assert endpoint.cwd == "/home/me"
    assert endpoint.env == {"TOKEN": "${MY_TOKEN}"}


def test_vs_codes_settings_are_read() -> None:
    imported = read_servers(b'{"mcp": {"servers": {"a": {"command": "a"}}}}', source="settings.json")
    assert [name for name, _ in imported.servers] == ["a"]


@pytest.mark.parametrize(
    ("entry", "place", "what"),
    [
        ("npx", "", "must be an object"),
        ({}, "", "needs `command` (a program) or `url`"),
        ({"command": "a", "url": "http://b.example.com"}, "", "has both"),
        ({"command": "npx -y server"}, ".command", "is a command line"),
        ({"command": 5}, ".command", "must be text"),
        ({"type": "stdio"}, ".command", "is missing"),
        ({"command": "a", "args": "b"}, ".args", "must be a list"),
        ({"command": "a", "args": ["b", None]}, ".args[1]", "must be text or a number"),
        ({"command": "a", "env": []}, ".env", "must be an object"),
        ({"command": "a", "envFile": ".env"}, ".envFile", "is not read"),
        ({"command": "a", "type": "http"}, ".type", "is stdio"),
        ({"url": "http://x.example.com", "type": "websocket"}, ".type", "http, sse or a2a"),
        ({"url": "x.example.com"}, ".url", "not an http(s) address"),
        ({"url": "http://x.example.com", "headers": {"K": "${input:key}"}}, ".headers.K", "${input:key}"),
        ({"command": "a", "cwd": "${workspaceFolder}"}, ".cwd", "${workspaceFolder}"),
        ({"command": "a", "disabled": True}, "", "is disabled"),
    ],
)
def test_a_bad_entry_is_named_and_the_others_are_read(entry: Json, place: str, what: str) -> None:
    document = {"mcpServers": {"bad": entry, "good": {"command": "good"}}}
    imported = read_servers(json.dumps(document).encode(), source="mcp.json")
    assert [name for name, _ in imported.servers] == ["good"]
    assert [mistake.entry for mistake in imported.mistakes] == [f"mcpServers.bad{place}"]
    assert what in str(imported.mistakes[0])


def test_names_that_make_the_same_id_are_told_apart() -> None:
    names = ["My Server", "my-server", "my_server", "x" * 40, "x" * 40 + "!"]
    document = {"mcpServers": {name: {"command": "a"} for name in names}}
    ids = [name for name, _ in read_servers(json.dumps(document).encode(), source="mcp.json").servers]
    assert ids[:3] == ["my-server", "my-server-2", "my-server-3"]
    assert len(set(ids)) == 5


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"<html>", "line 1, column 1"),
        (b'{\n  "mcpServers": {\n    // fine\n    "a": [}\n}', "line 4, column 11"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"{}", "neither mcpServers nor servers"),
        (b'{"name": "card"}', r"it has name"),
        (b'{"mcpServers": []}', "mcpServers must be an object"),
        (b" " * (9 * 1024 * 1024), "more than such a file can be"),
    ],
)
def test_a_file_that_names_no_servers_says_why(document: bytes, why: str) -> None:
    with pytest.raises(ImportUnreadable, match=why) as caught:
        read_servers(document, source="mcp.json")
    assert "mcp.json" in str(caught.value)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.text(max_size=6)
    | st.sampled_from(["//", "/*", ",]", '"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["command", "args", "env", "url", "type", "headers", "cwd"]), _json))
def test_whatever_an_entry_holds_it_is_read_or_named(entry: dict[str, object]) -> None:
    imported = read_servers(json.dumps({"servers": {"x": entry}}).encode(), source="mcp.json")
    assert bool(imported.servers) != bool(imported.mistakes)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_texts_that_look_like_comments_stay_as_they_are(text: str) -> None:
    document = json.dumps({"servers": {"x": {"command": "a", "args": [text.replace("$", "")]}}}, ensure_ascii=False)
    ((_, endpoint),) = read_servers(document.encode(), source="mcp.json").servers
    assert endpoint.command == ("a", text.replace("$", ""))


def test_a2a_agents_may_stand_beside_the_servers_with_credentials_by_scheme() -> None:
    document = b"""{"mcpServers": {"Reviewer": {"type": "a2a", "url": "https://r.example.com",
      "headers": {"X-Team": "${TEAM}"}, "credentials": {"sso": "${env:ID}:${SECRET}"}}}}"""
    imported = read_servers(document, source="mcp.json")
    assert imported.mistakes == ()
    ((agent_id, endpoint),) = imported.servers
    assert (agent_id, endpoint.binding, endpoint.url) == ("reviewer", Binding.A2A_JSONRPC, "https://r.example.com")
    assert endpoint.headers == {"X-Team": "${TEAM}"}
    assert endpoint.options == {"credentials": {"sso": "${ID}:${SECRET}"}}
