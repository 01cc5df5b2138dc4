"""The hub is killed in the middle of the demo's workflow; started again, it finishes without repeating what was done.

Real everything: LangGraph and CrewAI workers in their own environments, an A2A agent and an MCP server in theirs, the
`interhub` command, an MCP client. What ran how often is what the agents' own logs say.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.hub_process import Cli, HubProcess, cli, end, hub_process, wait_until_ready
from tests.support.processes import Peer, environment, peer
from tests.support.workers import WORKER_ENVIRONMENTS

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GOAL = "Durable delegation between AI agents"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The demo's hub and agents."""

    hub: HubProcess
    reviewer: Peer
    log: Path
    """Where the two workers write down what they executed."""

    def executions(self) -> Counter[str]:
        """How often each agent has begun to work."""
        said = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        begun = Counter(str(line["agent"]) for line in said)
        begun["fact-checker"] = sum(line["event"] == "started" for line in self.reviewer.executions())
        return begun


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    command = cli(tmp_path, {"INTERHUB_WORKERS__ENVIRONMENTS": str(WORKER_ENVIRONMENTS)})
    synced = command("workers", "sync", "langgraph", "crewai", timeout_s=600)
    assert synced.code == 0, synced.err
    log = tmp_path / "workers.jsonl"
    requirements = EXAMPLES / "requirements"
    reviewer_python = environment(requirements / "a2a_agent.txt")
    clock_python = environment(requirements / "mcp_time.txt")
    reviews = tmp_path / "reviews.jsonl"
    with (
        peer(reviewer_python, EXAMPLES / "a2a_agent.py", "--pace", "1.0", log=reviews) as reviewer,
        hub_process(command) as hub,
    ):
        register(command, reviewer.url, clock_python, log)
        yield Site(hub=hub, reviewer=reviewer, log=log)


def register(command: Cli, reviewer: str, clock: Path, log: Path) -> None:
    workers, demo, env = EXAMPLES / "workers", EXAMPLES / "demo", f"INTERHUB_EXAMPLE_LOG={log}"
    for arguments in (
        ["--name", "notes", "--framework", "langgraph", "--env", env, f"{workers / 'langgraph_notes.py'}:graph"],
        ["--name", "writers", "--framework", "crewai", "--env", env, f"{workers / 'crewai_writers.py'}:crew"],
        ["--name", "fact-checker", reviewer],
        ["--name", "clock", "--", str(clock), "-m", "mcp_server_time"],
        [str(demo / "review-desk.yaml")],
        [str(demo / "newsroom.yaml")],
        [str(demo / "briefing.yaml")],
    ):
        said = command("agents", "add", *arguments)
        assert said.code == 0, said.err


async def use_tool(url: str, key: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call one tool as an ordinary MCP client, in a session of its own."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=httpx2.Timeout(90)) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        answer = await client.call_tool(name, arguments)
    assert answer.structured_content is not None, answer
    return cast("dict[str, Any]", answer.structured_content)


def wait_for_event(hub: HubProcess, run_id: str, kind: str, step: str) -> None:
    """Return when the run's journal tells of an event."""
    headers = {"Authorization": f"Bearer {hub.key}", "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{hub.url}/api/runs/{run_id}/events", headers=headers, timeout=90) as events:
        for line in events.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                if event["kind"] == kind and event["step"] == step:
                    return
    raise AssertionError(f"the run ended without {kind} of {step}")


@pytest.mark.parametrize(
    ("kind", "step", "at_most"),
    [
        # Killed while the crew writes: the crew's process dies with the hub, so its call is made again, once.
        pytest.param("step_started", "newsroom.write", {"writers": 2}, id="while-the-crew-writes"),
        # Killed while the remote agent reviews: it works on, and is asked for its task instead of being sent it again.
        pytest.param("step_bound", "newsroom.check.fact_checker", {}, id="while-the-remote-agent-reviews"),
    ],
)
async def test_a_killed_hub_finishes_the_run_and_repeats_no_completed_step(
    site: Site, kind: str, step: str, at_most: dict[str, int]
) -> None:
    asked = {"goal": GOAL, "agent": "briefing", "wait_s": 0}
    run_id = (await use_tool(site.hub.url, site.hub.key, "delegate", asked))["run_id"]
    wait_for_event(site.hub, run_id, kind, step)

    os.kill(site.hub.pid, signal.SIGKILL)
    site.hub.process.wait(10)
    again = site.hub.cli.start("serve", "--port", "0")
    try:
        url = wait_until_ready(site.hub.cli, again)
        result = await use_tool(url, site.hub.key, "run_result", {"run_id": run_id, "wait_s": 60})
    finally:
        _, errors = end(again)

    assert result["state"] == "completed", f"{result.get('error')}\n{errors}"
    assert GOAL in result["answer"]
    took_part = {one["agent"] for one in result["steps"] if one["state"] == "completed"}
    assert took_part >= {"notes", "clock", "writers", "fact-checker"}
    begun = site.executions()
    assert set(begun) == {"notes", "writers", "fact-checker"}
    for agent, times in begun.items():
        assert 1 <= times <= at_most.get(agent, 1), begun
