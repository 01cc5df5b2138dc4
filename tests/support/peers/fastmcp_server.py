"""A server built with FastMCP, in an environment of its own; over stdio, or `--http PORT`."""

import sys

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError

mcp: FastMCP = FastMCP("fastmcp")


@mcp.tool
def add(a: int, b: int) -> dict[str, int]:
    """Adds two numbers."""
    return {"sum": a + b}


@mcp.tool
def fail(why: str) -> str:
    """Fails."""
    raise ToolError(f"failed: {why}")


@mcp.tool
async def count(to: int, ctx: Context) -> str:
    """Counts aloud."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"at {number}")
    return f"counted to {to}"


@mcp.resource("note://{name}")
def note(name: str) -> str:
    """A note."""
    return f"a note about {name}"


@mcp.resource("fixed://poem", mime_type="text/plain")
def poem() -> str:
    """A poem."""
    return "rain"


@mcp.prompt
def praise(whom: str) -> str:
    """Asks for praise."""
    return f"Praise {whom}."


if __name__ == "__main__":
    if sys.argv[1:2] == ["--http"]:
        mcp.run(transport="http", port=int(sys.argv[2]), show_banner=False)
    else:
        mcp.run(show_banner=False)
