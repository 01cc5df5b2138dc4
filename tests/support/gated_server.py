"""An MCP server over stdio with one tool, which notes a call and its end in a log, and ends it once a file is there.

python gated_server.py LOG GATE. A call whose message is not "hold" ends at once.
"""

import sys
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

LOG, GATE = Path(sys.argv[1]), Path(sys.argv[2])
SCHEMA = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}


def note(line: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{line}\n")


async def list_tools(ctx: ServerRequestContext[Any, Any], params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
    return t.ListToolsResult(tools=[t.Tool(name="work", input_schema=SCHEMA)], ttl_ms=0, cache_scope="private")


async def call_tool(ctx: ServerRequestContext[Any, Any], params: t.CallToolRequestParams) -> t.CallToolResult:
    said = str((params.arguments or {})["message"])
    note(said)
    while said == "hold" and not await anyio.Path(GATE).exists():  # noqa: ASYNC110  # another process opens it
        await anyio.sleep(0.02)
    note(f"did {said}")
    return t.CallToolResult(content=[t.TextContent(type="text", text=f"did {said}")])


async def main() -> None:
    server = Server[Any]("gated", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
