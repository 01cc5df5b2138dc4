"""MCP servers that nobody here wrote, in environments of their own."""

import subprocess
from pathlib import Path

import pytest

from interhub.adapters import Call, Completed, Principal, RemoteRefused, ignore, text_of
from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import Binding, Endpoint, JsonObject, Kind
from tests.support.processes import ROOT, environment

pytestmark = pytest.mark.anyio


def tool(name: str, arguments: JsonObject) -> Call:
    principal = Principal(subject="ada")
    return Call(capability=name, kind=Kind.TOOL, arguments=arguments, principal=principal, idempotency_key="k")


async def test_mcp_server_time_is_described_and_called() -> None:
    python = environment(ROOT / "examples" / "requirements" / "mcp_time.txt")
    endpoint = Endpoint(
        binding=Binding.MCP_STDIO, command=(str(python), "-m", "mcp_server_time", "--local-timezone", "Europe/Berlin")
    )
    adapter = McpAdapter()
    card = await adapter.describe(endpoint)
    assert {capability.name for capability in card.capabilities} == {"get_current_time", "convert_time"}
    async with adapter.connect(endpoint, card=card, label="time") as connection:
        asked = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        outcome = await connection.call(tool("convert_time", asked), ignore)
        assert isinstance(outcome, Completed)
        assert "Asia/Tokyo" in text_of(outcome.parts)
        with pytest.raises(RemoteRefused, match="'timezone' is a required property"):
            await connection.call(tool("get_current_time", {}), ignore)
        with pytest.raises(RemoteRefused, match=r"(?i)nowhere/land"):
            await connection.call(tool("get_current_time", {"timezone": "Nowhere/Land"}), ignore)


async def test_mcp_server_git_is_described_and_called(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    (tmp_path / "poem.txt").write_text("rain\n")
    git("add", "poem.txt")
    git("commit", "--message", "Write a poem")
    python = environment(ROOT / "tests" / "adapters" / "requirements" / "mcp_git.txt")
    endpoint = Endpoint(
        binding=Binding.MCP_STDIO, command=(str(python), "-m", "mcp_server_git", "--repository", str(tmp_path))
    )
    adapter = McpAdapter()
    card = await adapter.describe(endpoint)
    log = card.capability("git_log", Kind.TOOL)
    assert log is not None
    assert log.raw["inputSchema"] == log.input_schema
    async with adapter.connect(endpoint, card=card, label="git") as connection:
        outcome = await connection.call(tool("git_log", {"repo_path": str(tmp_path)}), ignore)
        assert isinstance(outcome, Completed)
        assert "Write a poem" in text_of(outcome.parts)
        with pytest.raises(RemoteRefused):
            await connection.call(tool("git_log", {"repo_path": "/no/such/place"}), ignore)
