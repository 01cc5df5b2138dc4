"""An MCP server of both eras whose tools fail in every way: `python -m benchmarks.soaking.faulty FD`.

`echo` answers, `slow` after 50 ms, `big` with a megabyte, `broken` with status 500, `reset` hangs up in the middle of
its answer, `hang` never answers, `garbage` answers what is no JSON, `restless` says first that the tools have changed.
"""

import asyncio
import sys
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from benchmarks.direct.serving import serve

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
NAMES = ("echo", "slow", "big", "broken", "reset", "hang", "garbage", "restless")
TOOLS = [{"name": name, "description": f"Is {name}", "inputSchema": SCHEMA} for name in NAMES]
INFO = {"name": "faulty", "version": "1"}
JSON = (b"content-type", b"application/json")
STREAM = (b"content-type", b"text/event-stream")
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


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
    if "id" not in request:
        await _say(send, 202, b"")
        return
    modern = scope["path"].startswith("/modern")
    params: dict[str, Any] = request.get("params") or {}
    name: str = params.get("name", "") if request["method"] == "tools/call" else ""
    result = _result(request["method"], params, modern=modern)
    said = {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
    answer = orjson.dumps({"jsonrpc": "2.0", "id": request["id"], **said})
    match name:
        case "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
        case "broken":
            await _say(send, 500, b"out of order")
        case "garbage":
            await _say(send, 200, b"{what is this")
        case "reset":
            await send({"type": "http.response.start", "status": 200, "headers": [JSON, (b"content-length", b"9999")]})
            await send({"type": "http.response.body", "body": answer, "more_body": True})
            raise ConnectionResetError("as asked")
        case "restless":
            await send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
            for each in (orjson.dumps(CHANGED), answer):
                await send({"type": "http.response.body", "body": b"data: " + each + b"\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case _:
            if name == "slow":
                await asyncio.sleep(0.05)
            session = [(b"mcp-session-id", b"soak")] if request["method"] == "initialize" else []
            await _say(send, 200, answer, session)


def _result(method: str, params: dict[str, Any], *, modern: bool) -> dict[str, Any] | None:
    whole: dict[str, Any] = {"resultType": "complete", "_meta": {"io.modelcontextprotocol/serverInfo": INFO}}
    cached = {"ttlMs": 0, "cacheScope": "public", **whole} if modern else {}
    match method:
        case "tools/call":
            text = "x" * 1_000_000 if params["name"] == "big" else str(params.get("arguments", {}).get("text", ""))
            return {"content": [{"type": "text", "text": text}], **(whole if modern else {})}
        case "tools/list":
            return {"tools": TOOLS, **cached}
        case "server/discover" if modern:
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **cached}
        case "initialize" if not modern:
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": INFO}
        case "ping" if not modern:
            return {}
        case _:
            return None


async def _say(send: Send, status: int, body: bytes, more: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [JSON, (b"content-length", str(len(body)).encode()), *(more or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
