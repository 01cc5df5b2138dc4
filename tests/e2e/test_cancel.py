"""A run that is cancelled: within two seconds every agent at work for it, however deep, has stopped, and says so."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from interhub.hub.settings import Workers
from tests.support.processes import peer
from tests.support.whole_hub import whole_hub
from tests.support.workers import AGENTS, WORKER_ENVIRONMENTS
from tests.support.workers import runs as is_alive

pytestmark = pytest.mark.anyio

SUPPORT = Path(__file__).resolve().parents[1] / "support"
WITHIN_S = 2.0
"""Issue 5: cancel reaches every leaf within 2 s."""


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def until(true: Callable[[], object], within_s: float) -> float:
    """Wait until something is true, and return how long that took; fails when it takes too long."""
    began = time.monotonic()
    with anyio.fail_after(within_s):
        while not true():  # noqa: ASYNC110 -- what another process does can only be looked at
            await anyio.sleep(0.01)
    return time.monotonic() - began


async def test_cancel_reaches_a_remote_task_a_tool_and_a_workers_process_within_two_seconds(tmp_path: Path) -> None:
    remote_log, tool_log, pids = tmp_path / "remote.jsonl", tmp_path / "tool.jsonl", tmp_path / "pids"
    plan = {
        "name": "three",
        "steps": [
            {
                "id": "all",
                "parallel": [
                    {
                        "id": "remote",
                        "plan": {
                            "workflow": {
                                "steps": [{"id": "deep", "call": {"agent": "remote", "message": "work 60000"}}]
                            }
                        },
                    },
                    {
                        "id": "tool",
                        "map": {
                            "over": "{{ ['x'] }}",
                            "steps": [
                                {
                                    "id": "slow",
                                    "call": {"agent": "four", "capability": "slow", "arguments": {"message": "hang"}},
                                }
                            ],
                        },
                    },
                    {"id": "worker", "call": {"agent": "stubborn", "data": {"first": str(pids)}}},
                ],
            }
        ],
    }
    settings = {"workers": Workers(environments=WORKER_ENVIRONMENTS)}
    with peer(sys.executable, SUPPORT / "agents" / "lasting_agent.py", log=remote_log) as remote:
        async with whole_hub(tmp_path / "hub", settings=settings) as hub:
            for body in (
                {"kind": "url", "id": "remote", "url": remote.url, "allow_private": True},
                {
                    "kind": "command",
                    "id": "four",
                    "command": [sys.executable, str(SUPPORT / "mcp_four.py"), str(tool_log)],
                },
                {
                    "kind": "worker",
                    "id": "stubborn",
                    "target": f"{AGENTS / 'langgraph_more.py'}:stubborn",
                    "framework": "langgraph",
                },
            ):
                added = await hub.client.post("/api/agents", json=body, timeout=120)
                assert added.status_code == 201, added.text
            run = (await hub.client.post("/api/runs", json={"workflow": plan})).json()
            await until(lambda: lines(remote_log) and lines(tool_log) and pids.exists() and pids.read_text(), 60)
            worker, child = map(int, pids.read_text().split())
            assert is_alive(worker)

            began = time.monotonic()
            canceled = await hub.client.post(f"/api/runs/{run['id']}/cancel")
            assert canceled.json()["state"] == "canceled"
            left_s = WITHIN_S - (time.monotonic() - began)
            assert left_s > 0
            await until(lambda: any(line["event"] == "canceled" for line in lines(remote_log)), left_s)
            await until(
                lambda: any(line["canceled"] for line in lines(tool_log)), WITHIN_S - (time.monotonic() - began)
            )
            await until(lambda: not is_alive(worker), WITHIN_S - (time.monotonic() - began))
            await until(lambda: not is_alive(child), WITHIN_S - (time.monotonic() - began))
