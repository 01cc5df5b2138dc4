"""The MCP Inspector, a client that we did not write, uses a real hub in both eras, over HTTP and through the bridge."""

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_process import COMMAND, HubProcess, cli, environment, hub_process
from tests.support.mcp_servers import EVERYTHING
from tests.support.node import node_tools

ERAS = ["legacy", "auto", "modern"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("inspector"))) as running:
        added = running.cli("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
        assert added.code == 0, added.err
        yield running


@pytest.fixture(params=["http", "stdio"])
def target(request: pytest.FixtureRequest, hub: HubProcess, tmp_path: Path) -> list[str]:
    """The arguments that name the hub to the Inspector."""
    server: dict[str, Any] = {"type": "stdio", "command": COMMAND[0]}
    server["args"] = [*COMMAND[1:], "--data-dir", str(hub.cli.data_dir), "mcp"]
    if request.param == "http":
        headers = {"Authorization": f"Bearer {hub.key}"}
        server = {"type": "streamable-http", "url": f"{hub.url}/mcp", "headers": headers}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"hub": server}}))
    return ["--config", str(config), "--server", "hub"]


def inspect(home: Path, target: list[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the Inspector; returns its result and what it complained of."""
    tools = node_tools()
    done = subprocess.run(
        [*tools.inspector, "--cli", *target, "--format", "json", "-q", *arguments],
        env=environment(home, {"PATH": tools.env["PATH"]}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    return result, done.stderr


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_lists_the_tools(target: list[str], era: str, tmp_path: Path) -> None:
    result, complaints = inspect(tmp_path, target, "--protocol-era", era, "--method", "tools/list", "--strict")
    names = [tool["name"] for tool in result["tools"]]
    assert names[:7] == ["delegate", "run_status", "run_result", "run_cancel", "answer", "find", "call"]
    assert [line for line in complaints.splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_delegates_and_gets_the_result(target: list[str], era: str, tmp_path: Path) -> None:
    arguments = {
        "goal": "add the numbers",
        "agent": "every",
        "capability": "add",
        "arguments": {"a": 2, "b": 3},
    }
    result, _ = inspect(
        tmp_path,
        target,
        "--protocol-era",
        era,
        "--method",
        "tools/call",
        "--tool-name",
        "delegate",
        "--tool-args-json",
        json.dumps(arguments),
    )
    run = result["structuredContent"]
    assert run["state"] == "completed", run
    assert "5" in json.dumps([run.get("answer"), run.get("data")])
    (step,) = run["steps"]
    assert (step["agent"], step["capability"]) == ("every", "add")


def test_one_agents_tool_that_promises_a_header_is_used_through_the_bridge(hub: HubProcess, tmp_path: Path) -> None:
    command = [*COMMAND, "--data-dir", str(hub.cli.data_dir), "mcp", "--agent", "every"]
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"every": {"command": command[0], "args": command[1:]}}}))
    call = ["--method", "tools/call", "--tool-name", "test_x_mcp_header", "--tool-arg", "region=north"]
    result, _ = inspect(tmp_path, ["--config", str(config), "--server", "every"], "--protocol-era", "modern", *call)
    assert result.get("isError") is not True, result
    assert "north" in json.dumps(result["content"])
