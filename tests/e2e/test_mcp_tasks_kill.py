"""A delegation as a task, to a server that makes a task of it, outlives the hub: killed, started again, followed on.

Real processes: the `interhub` command, and an MCP server whose log says how often it was called.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.hub_process import HubProcess, cli, end, hub_process, wait_until_ready
from tests.support.mcp_servers import ROOT, over_http
from tests.support.task_client import TaskClient, task_client

pytestmark = pytest.mark.anyio

SERVER = ROOT / "tests" / "support" / "mcp_tasks.py"


async def wait_for_binding(hub: HubProcess, run_id: str) -> None:
    """Return when the run's journal tells that the agent has made a task of the call."""
    headers = {"Authorization": f"Bearer {hub.key}", "Accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(timeout=60) as http,
        http.stream("GET", f"{hub.url}/api/runs/{run_id}/events", headers=headers) as events,
    ):
        async for line in events.aiter_lines():
            if line.startswith("data:") and json.loads(line[5:])["kind"] == "step_bound":
                return
    raise AssertionError("the run ended without a task of its agent's")


async def delegated(client: TaskClient, tool: str) -> str:
    arguments: dict[str, Any] = {"goal": tool, "agent": "up", "capability": tool, "arguments": {}}
    created = await client.call("delegate", arguments)
    assert created["resultType"] == "task", created
    return str(created["taskId"])


async def test_a_task_goes_on_after_the_hub_was_killed_and_its_agent_is_not_called_again(tmp_path: Path) -> None:
    log = tmp_path / "upstream.log"
    command = cli(tmp_path / "hub")
    async with over_http(SERVER, "--log", str(log)) as upstream:
        with hub_process(command) as hub:
            added = command("agents", "add", "--name", "up", upstream)
            assert added.code == 0, added.err
            async with task_client(f"{hub.url}/mcp", key=hub.key) as client:
                passing, asking = await delegated(client, "gate"), await delegated(client, "ask")
                await wait_for_binding(hub, passing)
                open_before = await client.until(asking, "input_required")
            os.kill(hub.pid, signal.SIGKILL)
            hub.process.wait(timeout=20)

        process = command.start("serve", "--port", "0")
        try:
            url = wait_until_ready(command, process)
            async with task_client(f"{url}/mcp", key=hub.key) as client, task_client(upstream) as direct:
                still = await client.request("tasks/get", taskId=passing)
                assert still["status"] == "working"
                asked = (await client.until(asking, "input_required"))["inputRequests"]
                assert asked == open_before["inputRequests"]
                first, second = sorted(asked)
                for key in (first, second):
                    said = {key: {"action": "accept", "content": {"said": "yes"}}}
                    await client.request("tasks/update", taskId=asking, inputResponses=said)
                    left = await client.request("tasks/get", taskId=asking)
                    assert key not in left.get("inputRequests", {})
                answered = await client.until(asking, "completed")
                assert "one=yes, two=yes" in str(answered["result"])
                await direct.call("open_gate")
                passed = await client.until(passing, "completed")
                assert passed["result"]["structuredContent"]["answer"] == "passed"
        finally:
            end(process)
    assert sorted(log.read_text().splitlines()) == ["call ask", "call gate"]
