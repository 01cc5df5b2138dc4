"""Claude Code, with a scripted model, hands a goal to a real hub over HTTP and over stdio."""

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_process import COMMAND, HubProcess, cli, environment, hub_process
from tests.support.mcp_servers import EVERYTHING
from tests.support.messages_api import ScriptedModel, messages_api
from tests.support.node import node_tools

ARGUMENTS = {
    "goal": "add the numbers",
    "agent": "every",
    "capability": "add",
    "arguments": {"a": 20, "b": 22},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("claude"))) as running:
        added = running.cli("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
        assert added.code == 0, added.err
        yield running


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_claude_code_delegates_and_its_model_reads_the_result(hub: HubProcess, transport: str, tmp_path: Path) -> None:
    server: dict[str, Any] = {
        "type": "stdio",
        "command": COMMAND[0],
        "args": [*COMMAND[1:], "--data-dir", str(hub.cli.data_dir), "mcp"],
    }
    if transport == "http":
        server = {"type": "http", "url": f"{hub.url}/mcp", "headers": {"Authorization": f"Bearer {hub.key}"}}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"hub": server}}))
    tools = node_tools()
    with messages_api(ScriptedModel(tool="mcp__hub__delegate", arguments=ARGUMENTS)) as model:
        extra = {
            "PATH": tools.env["PATH"],
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "ENABLE_TOOL_SEARCH": "false",
            "MCP_CONNECTION_NONBLOCKING": "false",
        }
        done = subprocess.run(
            [
                *tools.claude,
                "-p",
                "Add 20 and 22 by the hub.",
                "--mcp-config",
                str(config),
                "--strict-mcp-config",
                "--allowedTools",
                "mcp__hub__delegate",
            ],
            env=environment(tmp_path, extra),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mcp__hub__run_result" in model.offered
    (result,) = model.results
    said = json.dumps(result["content"])
    assert "completed" in said
    assert "42" in said
    assert "42" in done.stdout
