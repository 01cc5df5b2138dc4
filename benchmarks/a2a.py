"""What the hub costs A2A callers: a message relayed, a durable task, the first event of a stream, a task that waits.

    python benchmarks/a2a.py [--messages 2000] [--tasks 2000] [--parked 5000]

The hub, an agent that answers at once, and a relay that looks at nothing run in processes of their own; callers are
bare connections. `relay_ratio` is requests a second at `/agents/{id}/a2a` over those of the bare relay, at 16 callers.
`first_event_added_ms_p50` compares the first event of a stream from the hub's `/a2a` with that of the agent itself. The
last line is JSON.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Caller, Server, add_local, hub, program, rate, spread  # found by the path above

HERE = Path(__file__).parent
AGENTS = HERE / "scripted_agents.py"
BARE = HERE / "bare_a2a.py"
VERSION = {"A2A-Version": "1.0"}
CALLERS = 16
WARMING = 64
"""Messages before those that are counted."""


def message(text: str, agent: str = "", method: str = "SendMessage") -> bytes:
    """Write a request; each has a message id of its own."""
    said = {"messageId": f"m{time.time_ns()}", "role": "ROLE_USER", "parts": [{"text": text}]}
    metadata = {"metadata": {"interhub/agent": agent}} if agent else {}
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"message": {**said, **metadata}}}
    ).encode()


async def per_second(server: Server, path: str, total: int, text: str, state: bytes, agent: str = "") -> float:
    """Return how many messages a second are answered, at 16 callers."""
    callers = [Caller(server, path, VERSION) for _ in range(CALLERS)]

    async def send(caller: int, number: int) -> None:
        answer = await callers[caller].send(message(text, agent))
        if state not in answer:
            sys.exit(f"{server.url}{path} answers: {answer[:500].decode(errors='replace')}")

    await rate(CALLERS, WARMING, send)
    found: float = await rate(CALLERS, total, send)
    for caller in callers:
        await caller.close()
    return found


async def busily(server: Server, path: str, total: int, text: str, state: bytes) -> tuple[float, float]:
    """Return how many messages a second are answered, and the milliseconds of processor time that one takes."""
    before = server.cpu_s()
    found = await per_second(server, path, total, text, state)
    return found, (server.cpu_s() - before) / (total + WARMING) * 1000


async def first_events(server: Server, path: str, total: int, agent: str = "") -> list[float]:
    """Return the seconds to the first event of streams, one after the other."""
    caller = Caller(server, path, VERSION)
    found = [await caller.first_event(message("greet Ada", agent, "SendStreamingMessage")) for _ in range(total + 5)]
    await caller.close()
    return found[5:]


async def measured(given: argparse.Namespace, server: Server, agent: Server, relay: Server) -> dict[str, float]:
    """Measure everything."""
    add_local(server, "greeter", f"{AGENTS}:greet")
    add_local(server, "signer", f"{AGENTS}:sign")
    server.ask("/api/agents", {"kind": "url", "url": agent.url, "id": "bare"})
    completed = b"TASK_STATE_COMPLETED"
    floor, least = await busily(relay, "/", given.messages, "hello", completed)
    relayed, busy = await busily(server, "/agents/bare/a2a", given.messages, "hello", completed)
    print(
        f"relayed: {relayed:.0f} messages a second, {busy:.2f} ms of processor time each; "
        f"a bare relay {floor:.0f}, {least:.2f} ms",
        flush=True,
    )
    tasks, busy = await busily(server, "/a2a", given.tasks, "greet Ada, say hello", completed)
    print(f"durable tasks of one routed step: {tasks:.0f} a second, {busy:.1f} ms of processor time each", flush=True)
    direct = await first_events(agent, "/", 100)
    ours = await first_events(server, "/a2a", 100, "greeter")
    print(f"first event of a stream: {spread(ours)}; of the agent itself {spread(direct)}", flush=True)
    waiting = b"TASK_STATE_INPUT_REQUIRED"
    await per_second(
        server, "/a2a", 1200, "sign this", waiting, "signer"
    )  # what is kept for the last tasks is kept now
    before = server.resident_kb()
    await per_second(server, "/a2a", given.parked, "sign this", waiting, "signer")
    kilobytes = (server.resident_kb() - before) / (given.parked + WARMING)
    print(f"{given.parked} tasks that wait: {kilobytes:.0f} KB each")
    return {
        "relay_ratio": round(relayed / floor, 3),
        "tasks_per_s": round(tasks, 1),
        "first_event_added_ms_p50": round((median(ours) - median(direct)) * 1000, 2),
        "parked_task_kb": round(kilobytes, 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--parked", type=int, default=5000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        program(BARE, "agent") as agent,
        program(BARE, "relay", f"{agent.url}/") as relay,
        hub(Path(folder) / "data") as server,
    ):
        figures = await measured(given, server, agent, relay)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
