"""A server built with the MCP SDK's last 1.x, in an environment of its own; over stdio, or `--http PORT`."""

import sys

from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel

mcp = FastMCP("mcp-1", port=int(sys.argv[2]) if sys.argv[1:2] == ["--http"] else 8000)


class Sum(BaseModel):
    sum: int


class Name(BaseModel):
    name: str


@mcp.tool()
def add(a: int, b: int) -> Sum:
    """Adds two numbers."""
    return Sum(sum=a + b)


@mcp.tool()
def fail(why: str) -> str:
    """Fails."""
    raise ValueError(f"failed: {why}")


@mcp.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts aloud."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to, f"at {number}")
    return f"counted to {to}"


@mcp.tool()
async def greet(ctx: Context) -> str:
    """Asks for a name, and greets it."""
    answer = await ctx.elicit("What is your name?", Name)
    return f"Hello, {answer.data.name}!" if answer.action == "accept" else "Hello!"


@mcp.resource("note://{name}")
def note(name: str) -> str:
    """A note."""
    return f"a note about {name}"


@mcp.resource("fixed://poem", mime_type="text/plain")
def poem() -> str:
    """A poem."""
    return "rain"


@mcp.prompt()
def praise(whom: str) -> str:
    """Asks for praise."""
    return f"Praise {whom}."


if __name__ == "__main__":
    mcp.run("streamable-http" if sys.argv[1:2] == ["--http"] else "stdio")
