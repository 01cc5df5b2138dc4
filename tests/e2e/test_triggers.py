"""Triggers on a whole hub, as others call it: webhooks, events, schedules, and resources of an MCP server."""

import base64
import hmac
import json
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

NOTEBOOK = '''
"""An MCP server with one resource that a tool changes, and says so."""
import sys
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("notebook")
page = ["empty"]


@server.resource("note://page")
def read() -> str:
    return page[0]


@server.tool()
async def write(text: str, ctx: Context) -> str:
    page[0] = text
    await ctx.notify_resource_updated("note://page")
    return "written"


server.run("stdio")
'''


def standard(secret: str, body: bytes, name: str, at: float | None = None) -> dict[str, str]:
    stamp = str(int(time.time() if at is None else at))
    mac = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), f"{name}.{stamp}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(mac.digest()).decode()}"
    return {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": signature}


async def add(hub: WholeHub, **document: Any) -> dict[str, Any]:
    added = await hub.client.post("/api/triggers", json={"document": {"kind": "trigger", **document}})
    assert added.status_code == 201, added.text
    shaped: dict[str, Any] = added.json()
    return shaped


async def last(hub: WholeHub, name: str) -> dict[str, Any]:
    """Return what a trigger did last, once it has done something."""
    with anyio.fail_after(20):
        while True:
            listed = (await hub.client.get("/api/triggers")).json()["triggers"]
            found: dict[str, Any] | None = next(one["last"] for one in listed if one["name"] == name)
            if found is not None and found["runs"]:
                return found
            await anyio.sleep(0.05)


async def words(hub: WholeHub, run_id: str) -> str:
    run = (await hub.client.get(f"/api/runs/{run_id}", params={"wait_s": 10})).json()
    return "".join(part["text"] for part in run["parts"])


async def test_a_signed_webhook_begins_a_run_once_and_what_is_not_right_is_refused(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as others:
        run = {"agent": "clerk", "goal": "say order {{ event.data.order }}"}
        added = await add(hub, name="orders", webhook={}, run=run)
        assert added["url"] == f"{hub.url}/hooks/orders"
        secret, body = added["secret"], b'{"order": 7}'
        headers = standard(secret, body, "msg-1")
        first = await others.post("/hooks/orders", content=body, headers=headers)
        again = await others.post("/hooks/orders", content=body, headers=headers)
        assert (first.status_code, again.status_code) == (202, 202)
        assert (first.json()["new"], again.json()["new"]) == (True, False)
        assert first.json()["runs"] == [], "its sender learns nothing of the runs"
        done = await last(hub, "orders")
        assert await words(hub, done["runs"][0]) == "order 7"

        late = standard(secret, body, "msg-2", at=time.time() - 600)
        for refused in (late, {**headers, "webhook-id": "msg-3"}, {}, {"Authorization": f"Bearer {hub.key}"}):
            answer = await others.post("/hooks/orders", content=body, headers=refused)
            assert (answer.status_code, answer.json()["code"]) == (401, "WEBHOOK_REFUSED")
        torn = b'{"order": '
        answer = await others.post("/hooks/orders", content=torn, headers=standard(secret, torn, "msg-4"))
        assert answer.status_code == 400
        assert (await others.post("/hooks/none", content=body, headers=headers)).status_code == 404
        large = b'"' + b"x" * 300_000 + b'"'
        answer = await others.post("/hooks/orders", content=large, headers=standard(secret, large, "msg-5"))
        assert (answer.status_code, "256 KiB" in answer.text) == (400, True)
        assert len((await hub.client.get("/api/runs")).json()["runs"]) == 1
        listed = (await hub.client.get("/api/triggers")).text
        assert secret not in listed


async def test_a_push_of_a_remote_task_wakes_the_run_that_waits_for_it(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as others:
        token = "token-of-the-remote-task"
        await add(hub, name="remote", webhook={"verify": "a2a", "secret": token})
        wait = {
            "event": "remote",
            "match": {"statusUpdate.taskId": "t-1", "statusUpdate.status.state": "TASK_STATE_COMPLETED"},
        }
        plan = {"name": "w", "steps": [{"id": "pushed", "timeout_s": 20, "wait": wait}]}
        run = (await hub.client.post("/api/runs", json={"workflow": plan})).json()
        for state in ("TASK_STATE_WORKING", "TASK_STATE_COMPLETED"):
            update = {"statusUpdate": {"taskId": "t-1", "contextId": "c", "status": {"state": state}}}
            headers = {"X-A2A-Notification-Token": token, "Content-Type": "application/a2a+json"}
            assert (await others.post("/hooks/remote", content=json.dumps(update), headers=headers)).status_code == 202
        ended = (await hub.client.get(f"/api/runs/{run['id']}", params={"wait_s": 10})).json()
        assert ended["state"] == "completed"
        assert ended["structured"]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_resource_that_changes_begins_a_run_with_what_it_holds(tmp_path: Path) -> None:
    program = tmp_path / "notebook.py"
    program.write_text(NOTEBOOK)
    async with whole_hub(tmp_path / "hub") as hub:
        body = {"kind": "command", "id": "notebook", "command": [sys.executable, str(program)]}
        added = await hub.client.post("/api/agents", json=body)
        assert added.status_code == 201, added.text
        run = {"agent": "clerk", "goal": "say {{ event.data.text }}"}
        await add(hub, name="page", resource={"agent": "notebook", "uri": "note://page"}, run=run)
        written = 0
        with anyio.fail_after(20):
            while True:  # what it held when it was read first is what changes are seen against
                written += 1
                call = {"capability": "write", "kind": "tool", "arguments": {"text": f"page {written}"}}
                assert (await hub.client.post("/api/agents/notebook/call", json=call)).status_code == 200
                listed = (await hub.client.get("/api/triggers")).json()["triggers"]
                if listed[0]["last"] is not None and listed[0]["last"]["runs"]:
                    break
                await anyio.sleep(0.1)
        assert (await words(hub, listed[0]["last"]["runs"][0])).startswith("page ")


async def test_a_schedule_begins_its_runs_by_itself(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub:
        await add(hub, name="often", schedule="* * * * *", run={"agent": "clerk", "goal": "say {{ event.name }}"})
        fired = (await hub.client.post("/api/triggers/often/fire", json={})).json()
        assert await words(hub, fired["runs"][0]) == "often"
        assert (await hub.client.delete("/api/triggers/often")).status_code == 200
        gone = await hub.client.post("/api/triggers/often/fire", json={})
        assert (gone.status_code, gone.json()["code"]) == (404, "TRIGGER_NOT_FOUND")
