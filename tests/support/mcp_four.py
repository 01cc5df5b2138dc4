"""An MCP server with the four tools of the adapters' conformance suite, which logs what it sees to a file.

python mcp_four.py LOG [--http PORT] [--era both|legacy|modern]
"""

import argparse
import json
import socket
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
import uvicorn
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.shared.message import ServerMessageMetadata

Context = ServerRequestContext[Any, Any]
SCHEMA = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
FORM = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
MODERN = "2026-07-28"


class Four:
    def __init__(self, log: Path) -> None:
        self._log = log

    def note(self, ctx: Context, text: str, canceled: bool) -> None:
        meta = dict((ctx.params or {}).get("_meta") or {})
        line = {"text": text, "key": meta.get("interhub/idempotencyKey", ""), "canceled": canceled}
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def list_tools(self, ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
        tools = [t.Tool(name=name, input_schema=SCHEMA) for name in ("echo", "fail", "slow", "ask")]
        return t.ListToolsResult(tools=tools, ttl_ms=0, cache_scope="private")

    async def call_tool(self, ctx: Context, params: t.CallToolRequestParams) -> dict[str, Any]:
        text = str((params.arguments or {})["message"])
        if params.name != "ask":
            self.note(ctx, text, canceled=False)
        match params.name:
            case "echo":
                await ctx.session.report_progress(1, 2, "reading")
                return said(text)
            case "fail":
                return {**said(text), "isError": True}
            case "slow":
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    self.note(ctx, text, canceled=True)
                    raise
            case _:
                return await self.ask(ctx, params, text)
        raise AssertionError

    async def ask(self, ctx: Context, params: t.CallToolRequestParams, text: str) -> dict[str, Any]:
        form = t.ElicitRequestFormParams(message=f"really {text}?", requested_schema=FORM)
        if ctx.protocol_version == MODERN:
            given = (params.input_responses or {}).get("q")
            if isinstance(given, t.ElicitResult):
                return said(str((given.content or {}).get("answer")))
            request = {"method": "elicitation/create", "params": form.model_dump(by_alias=True, exclude_none=True)}
            return {"resultType": "input_required", "inputRequests": {"q": request}}
        metadata = ServerMessageMetadata(related_request_id=ctx.request_id)
        answer = await ctx.session.send_request(t.ElicitRequest(params=form), t.ElicitResult, metadata=metadata)
        return said(str((answer.content or {}).get("answer")))


def said(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "resultType": "complete"}


async def legacy_only(ctx: Context, call_next: CallNext) -> HandlerResult:
    if ctx.protocol_version == MODERN:
        raise MCPError(t.METHOD_NOT_FOUND, "Method not found")
    return await call_next(ctx)


async def over_stdio(server: Server[Any], era: str) -> None:
    async with stdio_server() as (read, write):
        if era == "legacy":
            return await serve_loop(server, read, write, lifespan_state={})
        await server.run(read, write, server.create_initialization_options())
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("--http", type=int)
    parser.add_argument("--era", default="both")
    given = parser.parse_args()
    four = Four(given.log)
    server: Server[Any] = Server("four", on_list_tools=four.list_tools)
    server.add_request_handler("tools/call", t.CallToolRequestParams, four.call_tool)
    if given.era == "legacy":
        server.middleware.insert(0, legacy_only)
    if given.http is None:
        anyio.run(over_stdio, server, given.era)
        return
    listening = socket.create_server(("127.0.0.1", given.http))
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error")).run([listening])


if __name__ == "__main__":
    main()
