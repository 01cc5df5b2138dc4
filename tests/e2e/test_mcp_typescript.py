"""The hub used by both TypeScript SDKs, in both eras, over HTTP and through the bridge."""

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

SCRIPT = Path(__file__).with_name("mcp_ts_client.cjs")
CLIENTS = [("client", "modern"), ("client", "auto"), ("client", "legacy"), ("sdk", "legacy")]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("typescript"))) as running:
        added = running.cli("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
        assert added.code == 0, added.err
        yield running


@pytest.mark.parametrize("transport", ["http", "stdio"])
@pytest.mark.parametrize(("sdk", "era"), CLIENTS)
def test_a_typescript_client_uses_everything_a_server_has(
    hub: HubProcess, sdk: str, era: str, transport: str, tmp_path: Path
) -> None:
    wanted: dict[str, Any] = {"sdk": sdk, "era": era}
    if transport == "http":
        wanted |= {"url": f"{hub.url}/agents/every/mcp", "key": hub.key}
    else:
        options = ["--data-dir", str(hub.cli.data_dir), "mcp", "--agent", "every"]
        wanted |= {"command": COMMAND[0], "args": [*COMMAND[1:], *options]}
    tools = node_tools()
    done = subprocess.run(
        [str(tools.node), str(SCRIPT), json.dumps(wanted)],
        env=environment(tmp_path, {"PATH": tools.env["PATH"], "NODE_PATH": tools.env["NODE_PATH"]}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout)
    assert saw["era"] == ("legacy" if era == "legacy" else "modern")
    assert {"add", "slow", "order"} <= set(saw["tools"])
    assert saw["sum"] == {"sum": 42}
    assert [line[:2] for line in saw["progress"]] == [[0, 100], [50, 100], [100, 100]]
    assert saw["failed"] is True
    assert (saw["asked"], saw["ordered"]) == (["What is it to be?", "Are you sure?"], "ordered tea")
    assert saw["sampled"] == ["What is the capital of France?"]
    assert "Paris" in saw["said"]
    assert saw["prompt"] == "Prompt with arguments: arg1='x', arg2='y'"
    assert json.loads(saw["resource"])["id"] == "7"
    assert saw["refused"] == -32602
    assert (saw["aborted"], saw["cancelled"]) == ("aborted", 1)
    assert saw["changed"] is True
