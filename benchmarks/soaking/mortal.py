"""An MCP server of 2025-11-25 over stdio that starts in no time, and ends when its tool `die` is called."""

import json
import os
import sys
from typing import Any

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
INFO = {"name": "mortal", "version": "1"}
HELLO: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": INFO}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            return HELLO
        case "tools/list":
            return {"tools": [{"name": name, "description": name, "inputSchema": SCHEMA} for name in ("echo", "die")]}
        case "tools/call":
            if params["name"] == "die":
                os._exit(3)
            return {"content": [{"type": "text", "text": params.get("arguments", {}).get("text", "")}]}
        case "ping":
            return {}
        case _:
            return None


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = answer(request["method"], request.get("params") or {})
        said = {"error": {"code": -32601, "message": "Method not found"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}), flush=True)
