"""The hub used by FastMCP's client, over HTTP and through the bridge."""

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_process import COMMAND, HubProcess, cli, environment, hub_process
from tests.support.mcp_servers import EVERYTHING, ROOT
from tests.support.processes import environment as python_environment

REQUIREMENTS = ROOT / "tests" / "adapters" / "requirements" / "fastmcp.txt"
CLIENT = ROOT / "tests" / "support" / "peers" / "fastmcp_client.py"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("fastmcp"))) as running:
        added = running.cli("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
        assert added.code == 0, added.err
        yield running


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_fastmcps_client_uses_what_a_server_has(hub: HubProcess, transport: str, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"url": f"{hub.url}/agents/every/mcp", "key": hub.key}
    if transport == "stdio":
        options = ["--data-dir", str(hub.cli.data_dir), "mcp", "--agent", "every"]
        wanted = {"command": COMMAND[0], "args": [*COMMAND[1:], *options], "env": environment(hub.cli.home)}
    done = subprocess.run(
        [str(python_environment(REQUIREMENTS)), str(CLIENT), json.dumps(wanted)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert {"add", "slow", "order"} <= set(saw["tools"])
    assert saw["sum"] == {"sum": 42}
    assert saw["progress"] == [[0, 100], [50, 100], [100, 100]]
    assert saw["failed"] is True
    assert (saw["asked"], saw["ordered"]) == (["What is it to be?", "Are you sure?"], "ordered tea")
    assert saw["prompt"] == "Prompt with arguments: arg1='x', arg2='y'"
    assert json.loads(saw["resource"])["id"] == "7"
