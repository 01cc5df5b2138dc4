"""The hub supplies the Tasks extension: its scenarios, at `/agents/{id}/mcp` of an agent that is no MCP server."""

import re
from pathlib import Path

import anyio
import pytest

from tests.support.node import node_tools
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

JOBS = Path(__file__).with_name("jobs.py")
SCENARIOS = (
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-status-notifications",
    "tasks-required-task-error",
    "tasks-mrtr-composition",
)


async def test_the_tasks_scenarios_pass_at_the_endpoint_of_a_local_agent(tmp_path: Path) -> None:
    tools = node_tools()
    failed: dict[str, str] = {}
    passed: dict[str, int] = {}

    async def check(scenario: str, url: str) -> None:
        command = [*tools.conformance, "server", "--url", url, "--scenario", scenario]
        done = await anyio.run_process(command, env=dict(tools.env), check=False)
        said = done.stdout.decode() + done.stderr.decode()
        found = re.search(r"Passed: (\d+)/(\d+), (\d+) failed", said)
        passed[scenario] = int(found[1]) if found else 0
        if done.returncode or found is None or found[3] != "0":
            failed[scenario] = said[-2000:]

    async with whole_hub(tmp_path, local={"jobs": f"{JOBS}:jobs"}, open_to_all=True) as hub:
        url = f"{hub.url.replace('127.0.0.1', 'localhost')}/agents/jobs/mcp"
        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for scenario in SCENARIOS:
                    group.start_soon(check, scenario, url)
    assert failed == {}, "\n".join(failed.values())
    assert sum(passed.values()) >= 40, passed
