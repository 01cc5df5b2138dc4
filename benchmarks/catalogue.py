"""How fast the whole hub lists its tools, and what ten thousand of them cost.

    python benchmarks/catalogue.py [--seconds 5] [--callers 8] [--agents 200]

A hub in a process of its own, as `interhub serve` starts it, with authentication and the request line on. First with
1,000 tools of 20 agents (all in one page) it is asked for `tools/list` in 2026-07-28; then with 50 tools of each of
`--agents`. A build is the first list after a change; a change is one more agent. The last line is JSON:
`{"lists_per_s", "list_bytes", "tools", "build_ms", "rebuild_ms", "added_mb", "search_tokens"}`.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.harness import Caller, Server, add_local, hub, rate  # noqa: E402  # found by the path above

TOOLS = 50
MODERN = "2026-07-28"
CHARS_PER_TOKEN = 3.5
MODULE = (
    "".join(
        f"async def do_{number:02}(path: str, limit: int = 10, deep: bool = False) -> str:\n"
        f'    """Look through what is at a path, and say what number {number} of the ways to look at it finds."""\n'
        "    return path\n\n\n"
        for number in range(TOOLS)
    )
    + f"skills = {{name: each for name, each in list(globals().items()) if name.startswith('do_')}}\nassert {TOOLS}\n"
)


def request(cursor: str = "") -> bytes:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "catalogue", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"_meta": meta, **({"cursor": cursor} if cursor else {})}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}).encode()


def caller(server: Server, path: str = "/mcp") -> Caller:
    accept = {"Accept": "application/json, text/event-stream"}
    return Caller(server, path, {**accept, "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/list"})


async def listed(server: Server, path: str = "/mcp") -> tuple[list[dict[str, Any]], float]:
    """Return every tool, and the seconds until the first page came."""
    asking = caller(server, path)
    tools: list[dict[str, Any]] = []
    cursor, first = "", 0.0
    while True:
        begun = time.perf_counter()
        result = json.loads(await asking.send(request(cursor)))["result"]
        first = first or time.perf_counter() - begun
        tools += result["tools"]
        cursor = result.get("nextCursor", "")
        if not cursor:
            await asking.close()
            return tools, first


async def lists_per_s(server: Server, callers: int, seconds: float) -> tuple[float, int]:
    """Return how often a second one page was listed, and its size."""
    connections = [caller(server) for _ in range(callers)]
    body = request()
    size = len(await connections[0].send(body))
    probe = await rate(callers, 50 * callers, lambda place, _: connections[place].send(body))
    reached = await rate(callers, max(callers, int(probe * seconds)), lambda place, _: connections[place].send(body))
    for connection in connections:
        await connection.close()
    return reached, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--agents", type=int, default=200)
    options = parser.parse_args()
    settings = {
        "INTERHUB_CATALOGUE__MODE": "all",
        "INTERHUB_CATALOGUE__PAGE_SIZE": "1100",
        "INTERHUB_CATALOGUE__PROFILES": json.dumps({"search": {"mode": "search"}}),
    }
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "toolbox.py"
        module.write_text(MODULE)
        target = f"{module}:skills"
        with hub(Path(folder) / "data", settings) as server:
            for number in range(20):
                add_local(server, f"agent-{number:03}", target)
            asyncio.run(listed(server))
            per_s, size = asyncio.run(lists_per_s(server, options.callers, options.seconds))
            print(f"tools/list of 1,000 tools: {per_s:,.0f} a second at {options.callers} callers, {size:,} bytes each")
            before_kb = server.resident_kb()
            for number in range(20, options.agents):
                add_local(server, f"agent-{number:03}", target)
            tools, build_s = asyncio.run(listed(server))
            added_mb = (server.resident_kb() - before_kb) / 1024
            add_local(server, "agent-zzz", target)
            again, rebuild_s = asyncio.run(listed(server))
            search, _ = asyncio.run(listed(server, "/mcp?profile=search"))
    tokens = math.ceil(len(json.dumps(search, separators=(",", ":"))) / CHARS_PER_TOKEN)
    print(
        f"{len(tools):,} tools: first page {build_s * 1000:.0f} ms after the last was added; {added_mb:.0f} MB for the "
        f"agents with records, index and lists; {rebuild_s * 1000:.0f} ms after one more agent ({len(again):,} tools)"
    )
    print(f"search mode: {len(search)} tools, {tokens} tokens at {CHARS_PER_TOKEN} characters")
    print(
        json.dumps(
            {
                "lists_per_s": round(per_s),
                "list_bytes": size,
                "tools": len(tools),
                "build_ms": round(build_s * 1000),
                "rebuild_ms": round(rebuild_s * 1000),
                "added_mb": round(added_mb),
                "search_tokens": tokens,
            }
        )
    )


if __name__ == "__main__":
    main()
