"""Whether a hub that is used, and misused, for long stays as small as it was.

    python benchmarks/soak.py [--sessions 10000] [--restarts 1000] [--minutes 5]

One hub in a process of its own. Legacy sessions are opened at /mcp and dropped, half of them without a word; stdio
servers die and are started again; then callers of both eras, A2A and runs share it with a server that hangs, resets,
floods and lies, and with callers that hang up in the middle. After each phase, and all through the last, the hub's
resident memory, open files, children and tasks are looked at. Growth is the median of the last third of the mixed load
over that of its second: the first third warms up caches that are bounded. The last line is JSON:
`{"sessions", "restarts", "calls", "resident_growth", "files_growth", "children_growth", "tasks_growth", ...}`.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import harness  # noqa: E402  # found by the path above

HERE = Path(__file__).parent
IDLE_S = 20
"""After which the hub forgets a legacy session that nobody uses."""

STEADY_S = 10.5
"""How long a stdio server has to live for its next start not to be put off."""

LOOK_EVERY_S = 5.0
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
FAULTS = ("broken", "reset", "garbage", "restless", "big", "slow")
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How big a hub is at one moment."""

    resident_kb: int
    files: int
    children: int
    tasks: int


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A hub, and the file that it counts its tasks into."""

    server: harness.Server
    count: Path

    async def size(self) -> Size:
        """Look at the hub."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> Size:
        self.count.unlink(missing_ok=True)
        os.kill(self.server.pid, signal.SIGUSR2)
        for _ in range(400):
            if self.count.exists():
                break
            time.sleep(0.05)
        place = Path(f"/proc/{self.server.pid}")
        return Size(
            resident_kb=self.server.resident_kb(),
            files=len(list((place / "fd").iterdir())),
            children=sum(_parent_of(each) == self.server.pid for each in Path("/proc").glob("[0-9]*")),
            tasks=int(self.count.read_text()),
        )


def _parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended meanwhile
        return 0


@contextmanager
def faulty_server() -> Generator[str]:
    """Start the server whose tools fail in every way, and return its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        command = [sys.executable, "-m", "benchmarks.soaking.faulty", str(listener.fileno())]
        with subprocess.Popen(
            command, cwd=ROOT, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                process.kill()


class Callers:
    """Whoever uses the hub, and what came of it."""

    def __init__(self, server: harness.Server) -> None:
        self.seen: Counter[str] = Counter()
        self._server = server
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100, keepalive_expiry=1.0)
        self._http = httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=60, limits=limits)

    async def close(self) -> None:
        await self._http.aclose()

    async def modern(self, tool: str, *, timeout_s: float = 60.0) -> None:
        """Call a tool at /mcp in 2026-07-28."""
        name = f"faulty__{tool}"
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": name, **ACCEPT}
        params = {"name": name, "arguments": {"text": "hello"}, "_meta": ENVELOPE}
        await self._post(f"modern {tool}", "/mcp", _rpc("tools/call", params), headers, timeout_s)

    async def legacy(self, tool: str) -> None:
        """Open a session at the agent's own place, call a tool, and drop the session without a word."""
        headers = {**ACCEPT, "MCP-Protocol-Version": LEGACY}
        session = await self.open_session("/agents/faulty/mcp")
        call = _rpc("tools/call", {"name": tool, "arguments": {"text": "hello"}})
        await self._post(f"legacy {tool}", "/agents/faulty/mcp", call, {**headers, "Mcp-Session-Id": session}, 60.0)

    async def open_session(self, path: str) -> str:
        """Open a legacy session and return its id."""
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        greeted = await self._http.post(path, content=_rpc("initialize", hello), headers=ACCEPT)
        greeted.raise_for_status()
        session: str = greeted.headers["mcp-session-id"]
        headers = {**ACCEPT, "MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": session}
        said = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})
        (await self._http.post(path, content=said, headers=headers)).raise_for_status()
        return session

    async def drop_session(self, path: str, session: str) -> None:
        """End a legacy session."""
        (await self._http.delete(path, headers={**ACCEPT, "Mcp-Session-Id": session})).raise_for_status()

    async def ask(self, agent: str, tool: str) -> httpx.Response:
        """Call a tool over REST."""
        body = {"capability": tool, "arguments": {"text": "hello"}}
        return await self._http.post(f"/api/agents/{agent}/call", json=body)

    async def run(self) -> None:
        """Have a run made over A2A."""
        said = {"messageId": f"m{time.time_ns()}", "role": "ROLE_USER", "parts": [{"text": "greet Ada"}]}
        message = {"message": {**said, "metadata": {"interhub/agent": "greeter"}}}
        await self._post("run", "/a2a", _rpc("SendMessage", message), {"A2A-Version": "1.0"}, 60.0)

    async def _post(self, what: str, path: str, body: str, headers: dict[str, str], timeout_s: float) -> None:
        try:
            answer = await self._http.post(path, content=body, headers=_JSON | headers, timeout=timeout_s)
            failed = answer.is_error or '"error":{"code"' in answer.text or '"isError":true' in answer.text
            self.seen[f"{what}: {'refused' if failed else 'answered'}"] += 1
        except httpx.TimeoutException:
            self.seen[f"{what}: hung up on"] += 1


_JSON = {"Content-Type": "application/json"}
ACCEPT = {"Accept": "application/json, text/event-stream", **_JSON}


def _rpc(method: str, params: dict[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def sessions(callers: Callers, total: int) -> None:
    """Open legacy sessions, 16 at a time; end every second one, and forget the others."""
    numbers = iter(range(total))

    async def work() -> None:
        for number in numbers:
            session = await callers.open_session("/mcp")
            if number % 2:
                await callers.drop_session("/mcp", session)

    await asyncio.gather(*(work() for _ in range(16)))


async def restarts(callers: Callers, agents: Sequence[str], each: int) -> int:
    """Have every stdio server die so many times, and return how often one answered after that."""
    answered = 0
    for _ in range(each):
        await asyncio.gather(*(callers.ask(agent, "die") for agent in agents))
        found = await asyncio.gather(*(callers.ask(agent, "echo") for agent in agents))
        answered += sum(not each.is_error for each in found)
        await asyncio.sleep(STEADY_S)
    return answered


async def mixed(callers: Callers, seconds: float) -> None:
    """Use the hub in every way at once."""
    until = time.monotonic() + seconds
    dice = random.Random(1)  # which fault comes next is no secret

    async def repeat(count: int, work: Callable[[], Coroutine[Any, Any, None]], pause_s: float = 0.0) -> None:
        async def forever() -> None:
            while time.monotonic() < until:
                await work()
                await asyncio.sleep(pause_s)

        await asyncio.gather(*(forever() for _ in range(count)))

    await asyncio.gather(
        repeat(4, lambda: callers.modern("echo"), 0.01),
        repeat(2, lambda: callers.modern(dice.choice(FAULTS)), 0.02),
        repeat(2, lambda: callers.modern("hang", timeout_s=0.3)),
        repeat(2, lambda: callers.legacy(dice.choice(("echo", *FAULTS))), 0.05),
        repeat(2, callers.run, 0.02),
    )


@asynccontextmanager
async def watching(hub: Watched, into: list[Size]) -> AsyncGenerator[None]:
    """Look at the hub again and again."""

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            into.append(await hub.size())

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()


def growth(sizes: Sequence[Size]) -> dict[str, float]:
    """Return for each figure the median of the last third over that of the second."""
    third = max(1, len(sizes) // 3)
    second, last = sizes[third : 2 * third], sizes[-third:]
    return {
        f"{name.removesuffix('_kb')}_growth": round(
            median(getattr(each, name) for each in last) / max(1, median(getattr(each, name) for each in second)), 3
        )
        for name in asdict(sizes[0])
    }


async def soak(hub: Watched, faulty: str, options: argparse.Namespace) -> dict[str, object]:
    """Go through all phases."""
    server = hub.server
    harness.add_local(server, "greeter", f"{HERE / 'scripted_agents.py'}:greet")
    server.ask("/api/agents", {"kind": "url", "id": "faulty", "url": f"{faulty}/modern", "protocol": "mcp"})
    mortals = [f"mortal-{number}" for number in range(min(100, options.restarts))]
    command = [sys.executable, "-E", "-S", str(HERE / "soaking" / "mortal.py")]
    for agent in mortals:
        server.ask("/api/agents", {"kind": "command", "id": agent, "command": command})
    callers = Callers(server)
    began = time.monotonic()
    found: dict[str, Size] = {}

    async def note(phase: str) -> None:
        found[phase] = await hub.size()
        print(f"{time.monotonic() - began:6.0f} s  {phase:28} {found[phase]}", flush=True)

    await callers.modern("echo")
    await note("before")
    for part in range(1, 5):
        await sessions(callers, options.sessions // 4)
        await note(f"{part * options.sessions // 4} sessions opened")
    await asyncio.sleep(2 * IDLE_S)
    await note("sessions forgotten")
    answered = await restarts(callers, mortals, max(1, options.restarts // max(1, len(mortals)))) if mortals else 0
    await note(f"{answered} restarts")
    sizes: list[Size] = []
    async with watching(hub, sizes):
        await mixed(callers, options.minutes * 60)
    for at in range(0, len(sizes), max(1, len(sizes) // 6)):
        print(f"         mixed load, {at * LOOK_EVERY_S:3.0f} s           {sizes[at]}")
    await asyncio.sleep(2 * IDLE_S)
    await note("after the mixed load")
    for what, count in sorted(callers.seen.items()):
        print(f"         {count:8} {what}")
    await callers.close()
    return {
        "sessions": options.sessions,
        "restarts": answered,
        "calls": sum(callers.seen.values()),
        **(growth(sizes) if len(sizes) >= 3 else {}),
        "resident_mb": {phase: round(size.resident_kb / 1024) for phase, size in found.items()},
    }


def main() -> None:
    """Measure, and print one line of JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--restarts", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, faulty_server() as faulty:
        count = Path(folder) / "tasks"
        harness.INTERHUB = (sys.executable, "-m", "benchmarks.soaking.watched_hub", str(count))
        env = {"INTERHUB_MCP__SESSION_IDLE_S": str(IDLE_S), "PYTHONPATH": str(ROOT)}
        with harness.hub(Path(folder) / "data", env) as server:
            found = asyncio.run(soak(Watched(server=server, count=count), faulty, options))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
