"""What one key's holder has begun is, to the holder of another key, not there: on every face, in the same words."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from interhub.hub.auth import key_hash
from interhub.hub.settings import Auth
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

OTHER = "ih_" + "o" * 43
GREETING = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def told(client: httpx.AsyncClient, run_id: str) -> dict[str, str]:
    """Return every face's answer about a run, without what differs by request."""
    base = f"/api/runs/{run_id}"
    answers = {
        "show": await client.get(base),
        "events": await client.get(f"{base}/events"),
        "stream": await client.get(f"{base}/events", headers={"Accept": "text/event-stream"}),
        "cancel": await client.post(f"{base}/cancel"),
        "answer": await client.post(f"{base}/answer", json={"text": "x"}),
        "before": await client.get("/api/runs", params={"before": run_id}),
    }
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        body = rpc(method, {"id": run_id})
        answers[method] = await client.post("/a2a", json=body, headers={"A2A-Version": "1.0"})
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}], "taskId": run_id}
    body = rpc("SendMessage", {"message": message})
    answers["SendMessage"] = await client.post("/a2a", json=body, headers={"A2A-Version": "1.0"})
    greeted = await client.post("/mcp", json=rpc("initialize", GREETING), headers=ACCEPT)
    session = {**ACCEPT, "Mcp-Session-Id": greeted.headers["mcp-session-id"]}
    await client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
    for tool, more in (("run_status", {}), ("run_result", {}), ("run_cancel", {}), ("answer", {"answer": "x"})):
        body = rpc("tools/call", {"name": tool, "arguments": {"run_id": run_id, **more}})
        answers[f"mcp {tool}"] = await client.post("/mcp", json=body, headers=session)
    told: dict[str, str] = {}
    for name, answer in answers.items():
        text = answer.text.replace(run_id, "RUN").replace(answer.headers["x-request-id"], "REQUEST")
        told[name] = f"{answer.status_code} {text}"
    return told


async def test_a_run_of_another_key_is_like_none_on_every_face(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with whole_hub(tmp_path, auth=Auth(key_hashes=(key_hash(OTHER),))) as hub:
            goal = {"goal": "x", "agent_id": "clerk", "idempotency_key": "same", "wait_s": 20}
            mine = (await hub.client.post("/api/runs", json=goal)).json()
            greeted = await hub.client.post("/mcp", json=rpc("initialize", GREETING), headers=ACCEPT)
            session = {**ACCEPT, "Mcp-Session-Id": greeted.headers["mcp-session-id"]}
            assert (await hub.client.post("/mcp", json=rpc("tools/list", {}), headers=session)).status_code == 200

            headers = {"Authorization": f"Bearer {OTHER}"}
            async with httpx.AsyncClient(base_url=hub.url, headers=headers, timeout=30) as other:
                assert (await other.get("/api/runs")).json()["runs"] == []
                theirs = await told(other, mine["id"])
                nothing = await told(other, str(uuid4()))
                assert theirs == nothing
                assert (await other.post("/mcp", json=rpc("tools/list", {}), headers=session)).status_code == 404
                assert [agent["id"] for agent in (await other.get("/api/agents")).json()["agents"]] == ["clerk"]
                again = (await other.post("/api/runs", json=goal)).json()
                assert again["id"] != mine["id"], "a key of one's own is nobody else's"
            assert all("RUN" in text for text in theirs.values()), "each says which run it did not find"
            assert all("clerk" not in text for text in theirs.values())
            assert (await hub.client.get(f"/api/runs/{mine['id']}")).status_code == 200


@pytest.mark.parametrize("path", ["/api/agents", "/api/runs", "/a2a", "/mcp", "/agents/clerk/mcp", "/agents/clerk/a2a"])
async def test_a_web_page_without_the_key_gets_nowhere(tmp_path: Path, path: str) -> None:
    async with whole_hub(tmp_path) as hub, httpx.AsyncClient(base_url=hub.url) as page:
        body = '{"kind": "command", "command": ["touch", "owned"]}'
        simple = {"Content-Type": "text/plain"}
        assert (await page.post(path, content=body, headers=simple)).status_code == 401
        assert (await page.post(path, content=body, headers={**simple, "Cookie": f"key={hub.key}"})).status_code == 401
        assert (await page.post(f"{path}?api_key={hub.key}", content=body, headers=simple)).status_code == 401
        there = {"Authorization": f"Bearer {hub.key}", "Origin": "https://evil.example"}
        assert (await page.post(path, content=body, headers={**simple, **there})).status_code == 403
        rebound = {"Authorization": f"Bearer {hub.key}", "Host": "evil.example"}
        assert (await page.post(path, content=body, headers={**simple, **rebound})).status_code == 421
