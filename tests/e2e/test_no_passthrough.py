"""What a caller shows to the hub stays with the hub: agents get what was registered for them, and nothing else."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.mcp_servers import serving
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

CALLER = {
    "Cookie": "session=canary-cookie",
    "X-API-Key": "canary-api-key",
    "Proxy-Authorization": "Basic canary-proxy",
    "baggage": "user=canary-baggage",
    "X-Forwarded-User": "canary-user",
}


class Canary:
    """An A2A agent and an MCP server that remember everything they are sent."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], str]] = []
        routes = [
            Route("/a2a/.well-known/agent-card.json", self.card),
            Route("/a2a", self.a2a, methods=["POST"]),
            Route("/mcp", self.mcp, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    async def card(self, request: Request) -> Response:
        await self._hear(request)
        skill = {"id": "say", "name": "say", "description": "Says it.", "tags": ["x"]}
        interface = {"url": f"{request.base_url}a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        return JSONResponse(
            {
                "name": "Canary",
                "description": "Listens.",
                "version": "1",
                "supportedInterfaces": [interface],
                "capabilities": {},
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "skills": [skill],
            }
        )

    async def a2a(self, request: Request) -> Response:
        asked = await self._hear(request)
        message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "said"}]}
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": {"message": message}})

    async def mcp(self, request: Request) -> Response:
        asked = await self._hear(request)
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "canary", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "say", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": "said"}]},
        }
        if "id" not in asked:
            return Response(status_code=202)
        if asked["method"] not in results:
            error = {"code": -32601, "message": "Method not found"}
            return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": results[asked["method"]]})

    async def _hear(self, request: Request) -> Any:
        body = await request.body()
        self.heard.append((request.url.path, dict(request.headers), body.decode()))
        return await request.json() if body else None


async def use(hub: WholeHub, agent: str) -> None:
    """Use an agent's one capability over every face."""
    called = await hub.client.post(f"/api/agents/{agent}/call", json={"arguments": {"message": "x"}}, headers=CALLER)
    assert called.json().get("outcome") == "completed", called.text
    goal = {"agent_id": agent, "capability": "say", "arguments": {"message": "x"}, "wait_s": 20}
    run = await hub.client.post("/api/runs", json=goal, headers=CALLER)
    assert run.json()["state"] == "completed", run.text
    message = {"messageId": f"m-{agent}", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    sent = await hub.client.post(f"/agents/{agent}/a2a", json=body, headers={**CALLER, "A2A-Version": "1.0"})
    assert "said" in str(sent.json()["result"]), sent.text
    for path, tool in (("/mcp", f"{agent}__say"), (f"/agents/{agent}/mcp", "say")):
        accept = {**CALLER, "Accept": "application/json, text/event-stream"}
        greeting = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting}
        greeted = await hub.client.post(path, json=body, headers=accept)
        session = {**accept, "Mcp-Session-Id": greeted.headers["mcp-session-id"]}
        await hub.client.post(path, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
        body = {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": tool, "arguments": {"message": "x"}},
        }
        answer = await hub.client.post(path, json=body, headers=session)
        assert "said" in answer.text, answer.text


async def test_no_agent_ever_sees_what_the_caller_showed_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_OWN", "the-agents-own")
    canary = Canary()
    with anyio.fail_after(60):
        async with serving(canary.app) as url, whole_hub(tmp_path) as hub:
            for agent in ("a2a", "mcp"):
                source = {
                    "kind": "url",
                    "id": agent,
                    "url": f"{url}/{agent}",
                    "protocol": agent,
                    "headers": {"Authorization": "Bearer ${CANARY_OWN}"},
                }
                added = await hub.client.post("/api/agents", json=source, headers=CALLER)
                assert added.status_code == 201, added.text
                await use(hub, agent)
            key = hub.key
    assert {path for path, _, _ in canary.heard} >= {"/a2a", "/mcp"}
    for path, headers, body in canary.heard:
        assert headers["authorization"] == "Bearer the-agents-own", path
        said = f"{headers} {body}"
        assert "canary-" not in said, (path, said)
        assert key not in said, path
    for name in ("interhub.db", "interhub.db-wal", "engine.db", "engine.db-wal"):
        file = tmp_path / name
        kept = file.read_bytes() if file.exists() else b""
        assert key.encode() not in kept, name
        assert b"canary-" not in kept, name
        assert b"the-agents-own" not in kept, name
