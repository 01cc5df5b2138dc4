"""The hub is killed while fifty tasks stream to fifty subscribers, twenty of them on a remote agent; it starts again.

Every task ends, the remote agent got each message once (its own log says so), each subscriber goes on where it was with
neither a gap nor a repeat, and what webhooks had not been told by then they are told.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import yaml

from tests.support.hub_process import HubProcess, cli, end, hub_process, wait_until_ready
from tests.support.processes import Peer, environment, peer
from tests.support.webhook import Webhook, webhook
from tests.support.whole_hub import CLERK

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
REMOTE, LOCAL = 20, 30
ENDED = "TASK_STATE_COMPLETED"
COUNTING = """
kind: workflow
name: counting
description: Counts, rests and counts again.
steps:
  - id: first
    call: {agent: clerk, message: count 2}
  - id: rest
    wait: {seconds: 6}
  - id: second
    call: {agent: clerk, message: count 2}
"""


@dataclass
class Subscriber:
    """One caller, and what it was told."""

    number: int
    task: str = ""
    state: str = ""
    told: list[int] = field(default_factory=list[int])
    """The numbers of the updates, in the order in which they came."""

    @property
    def agent(self) -> str:
        return "reviewer" if self.number < REMOTE else "counting"

    def message(self) -> dict[str, Any]:
        """What it sends."""
        text = f"slow: 8 Text {self.number} has 3 claims." if self.agent == "reviewer" else "go"
        return {
            "messageId": f"message-{self.number}",
            "role": "ROLE_USER",
            "parts": [{"text": text}],
            "metadata": {"interhub/agent": self.agent},
        }

    async def follow(self, client: httpx.AsyncClient, method: str, params: Any, news: Callable[[], None]) -> None:
        """Read a stream to its end, however it ends."""
        headers = {"A2A-Version": "1.0", "Last-Event-ID": str(self.told[-1])} if self.told else {"A2A-Version": "1.0"}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with client.stream("POST", "/a2a", json=body, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        self._take(json.loads(line[5:]))
                        news()
        except (httpx.RemoteProtocolError, httpx.ReadError):
            pass  # the hub was killed

    def _take(self, said: dict[str, Any]) -> None:
        assert "error" not in said, said
        ((kind, told),) = said["result"].items()
        self.task = told["id"] if kind == "task" else told["taskId"]
        if "status" in told:
            self.state = told["status"]["state"]
        number = told.get("metadata", {}).get("interhub/sequence")
        if kind != "task" and number is not None:
            self.told.append(int(number))


async def test_fifty_streams_outlive_a_killed_hub(tmp_path: Path) -> None:
    command = cli(tmp_path, {"INTERHUB_EGRESS__ALLOWED_NETWORKS": "127.0.0.0/8"})
    reviewer_python = environment(EXAMPLES / "requirements" / "a2a_agent.txt")
    callers = [Subscriber(number) for number in range(REMOTE + LOCAL)]
    with peer(reviewer_python, EXAMPLES / "a2a_agent.py", log=tmp_path / "reviews.jsonl") as reviewer:
        async with webhook() as hook:
            with hub_process(command) as hub:
                await register(hub, reviewer.url, tmp_path)
                await until_all_are_at_work(hub, callers, reviewer, hook)
                held = [len(caller.told) for caller in callers]
                assert all(caller.state != ENDED for caller in callers), "it is killed in the middle"
            again = command.start("serve", "--port", "0")
            try:
                url = await anyio.to_thread.run_sync(wait_until_ready, command, again)
                whole = await until_all_have_ended(url, hub.key, callers)
                with anyio.fail_after(60):
                    while len({each.path for each in hook.received if each.state == ENDED}) < len(callers):
                        await hook.came.wait()
            finally:
                end(again)
        sent = Counter(str(line["messageId"]) for line in reviewer.executions() if line["event"] == "started")
    assert {caller.state for caller in callers} == {ENDED}
    assert len(sent) == REMOTE
    assert set(sent.values()) == {1}, "a remote agent is asked for its task, not sent the message again"
    for caller, before in zip(callers, held, strict=True):
        assert caller.told == whole[caller.number], f"{caller} had {before} updates when the hub was killed"
    assert sum(held) > 0


async def register(hub: HubProcess, reviewer: str, folder: Path) -> None:
    """Have the hub know a remote agent, a local one, and a workflow."""
    async with connected(hub.url, hub.key) as client:
        clerk = {"binding": "LOCAL", "options": {"target": f"{CLERK}:clerk"}}
        for body in (
            {"kind": "url", "id": "reviewer", "url": reviewer},
            {"kind": "endpoint", "adapter": "local", "id": "clerk", "endpoint": clerk},
            {"kind": "document", "document": yaml.safe_load(COUNTING)},
        ):
            added = await client.post("/api/agents", json=body)
            assert added.status_code == 201, added.text


async def until_all_are_at_work(hub: HubProcess, callers: list[Subscriber], reviewer: Peer, hook: Webhook) -> None:
    """Open the streams; kill the hub once every task works and the remote agent has all of its own."""
    working = anyio.Event()

    def news() -> None:
        if all(caller.told for caller in callers):
            working.set()

    async def open_stream(client: httpx.AsyncClient, caller: Subscriber) -> None:
        config = {"taskPushNotificationConfig": {"url": f"{hook.url}/{caller.number}"}}
        params = {"message": caller.message(), "configuration": config}
        await caller.follow(client, "SendStreamingMessage", params, news)

    async with connected(hub.url, hub.key) as client, anyio.create_task_group() as streams:
        for caller in callers:
            streams.start_soon(open_stream, client, caller)
        with anyio.fail_after(30):
            await working.wait()
            # A log file tells nobody that it grows.
            while sum(line["event"] == "started" for line in reviewer.executions()) < REMOTE:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        os.kill(hub.pid, signal.SIGKILL)


async def until_all_have_ended(url: str, key: str, callers: list[Subscriber]) -> dict[int, list[int]]:
    """Take all streams up where they were cut; return what those are told who ask for everything from the beginning."""
    whole: dict[int, list[int]] = {}

    async def resume(client: httpx.AsyncClient, caller: Subscriber) -> None:
        await caller.follow(client, "SubscribeToTask", {"id": caller.task}, lambda: None)
        other = Subscriber(caller.number, task=caller.task, told=[0])
        await other.follow(client, "SubscribeToTask", {"id": caller.task}, lambda: None)
        whole[caller.number] = other.told[1:]

    with anyio.fail_after(90):
        async with connected(url, key) as client, anyio.create_task_group() as streams:
            for caller in callers:
                streams.start_soon(resume, client, caller)
    return whole


def connected(url: str, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=100)
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=90, limits=limits)
