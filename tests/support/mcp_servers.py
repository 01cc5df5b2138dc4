"""Real MCP servers in processes of their own, for tests."""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import uvicorn
from starlette.types import ASGIApp

from interhub.agent_cards import Binding, Endpoint

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ROOT / "examples" / "everything_server.py"
FOUR = ROOT / "tests" / "support" / "mcp_four.py"


def program(path: Path, *arguments: str, version: str = "") -> Endpoint:
    """Return the endpoint of a server program over stdio."""
    command = (sys.executable, "-W", "ignore", str(path), *arguments)
    return Endpoint(binding=Binding.MCP_STDIO, command=command, version=version)


def script(source: str) -> Endpoint:
    """Return the endpoint of a few lines of Python over stdio."""
    return Endpoint(binding=Binding.MCP_STDIO, command=(sys.executable, "-u", "-W", "ignore", "-c", source))


def at(url: str, *, version: str = "") -> Endpoint:
    """Return the endpoint of a server over HTTP."""
    return Endpoint(binding=Binding.MCP_HTTP, url=url, version=version)


@asynccontextmanager
async def over_http(path: Path, *arguments: str, port: int = 0) -> AsyncGenerator[str]:
    """Run a server program over HTTP and yield its URL; it is killed on the way out."""
    command: Sequence[str] = [sys.executable, "-W", "ignore", str(path), *arguments, "--http", str(port)]
    async with await anyio.open_process(command, stderr=sys.stderr) as process:
        try:
            assert process.stdout is not None
            line = b""
            with anyio.fail_after(30):
                while b"\n" not in line:
                    line += await process.stdout.receive()
            yield line.decode().split()[-1]
        finally:
            process.kill()


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncGenerator[str]:
    """Serve an application on a free port of loopback and yield its address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", lifespan="on", ws="none", timeout_graceful_shutdown=1)
    )
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    async with anyio.create_task_group() as tasks:
        await server.startup()
        tasks.start_soon(server.main_loop)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            with anyio.CancelScope(shield=True):
                await server.shutdown()
            tasks.cancel_scope.cancel()
