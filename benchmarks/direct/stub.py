"""An MCP server that costs next to nothing, at /modern and at /legacy: `python -m benchmarks.direct.stub FD`.

Raw ASGI over the listening socket that it is handed. What it cannot answer it refuses as its era does.
"""

import sys
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from benchmarks.direct.serving import serve

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [{"name": "echo", "description": "Say the text again", "inputSchema": SCHEMA}]
INFO = {"name": "stub", "version": "1"}
LEGACY = frozenset({"2025-03-26", "2025-06-18", "2025-11-25"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] != "POST":
        await _say(send, 405 if scope["method"] == "GET" else 200, b"")
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    request = orjson.loads(body)
    number = request.get("id")
    if number is None:
        await _say(send, 202, b"")
        return
    modern = scope["path"].startswith("/modern")
    result = _result(request["method"], request.get("params") or {}, modern=modern)
    said = {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
    session = [] if modern or request["method"] != "initialize" else [(b"mcp-session-id", b"stub-session")]
    await _say(send, 200, orjson.dumps({"jsonrpc": "2.0", "id": number, **said}), session)


def _result(method: str, params: dict[str, Any], *, modern: bool) -> dict[str, Any] | None:
    whole: dict[str, Any] = {"resultType": "complete", "_meta": {"io.modelcontextprotocol/serverInfo": INFO}}
    cached = {"ttlMs": 0, "cacheScope": "public", **whole} if modern else {}
    match method:
        case "tools/call":
            content = [{"type": "text", "text": str(params.get("arguments", {}).get("text", ""))}]
            return {"content": content, "isError": False, **(whole if modern else {})}
        case "tools/list":
            return {"tools": TOOLS, **cached}
        case "server/discover" if modern:
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **cached}
        case "initialize" if not modern:
            asked = params.get("protocolVersion")
            version = asked if asked in LEGACY else "2025-11-25"
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": INFO}
        case "ping" if not modern:
            return {}
        case _:
            return None


async def _say(send: Send, status: int, body: bytes, more: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
