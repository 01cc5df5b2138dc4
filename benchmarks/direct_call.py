"""What a proxied call costs: `python benchmarks/direct_call.py [--rounds N] [--seconds S]`.

Starts a stub server, a bare relay (the floor: raw ASGI in, the hub's own outbound client, and nothing between) and the
hub with its settings as they come, in processes of their own, and measures them in interleaved rounds; figures are
medians over the rounds. The hub is called at `/mcp`, where authentication, policy, budget, argument validation, audit
and trace context are on; the same at `/agents/{id}/mcp` is told beside it.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.direct.load import Caller, Seen, Target, load  # noqa: E402  # found by the path above

INTERHUB = (sys.executable, "-m", "interhub.hub.cli")
CALLERS = 32
COLD = 6
"""Servers whose first call is timed, one after the other; the first of them also imports and is not counted."""
START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process that listens."""

    url: str
    pid: int


@contextmanager
def program(module: str, *arguments: str) -> Generator[Started]:
    """Run one of our modules on a socket of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", module, str(listener.fileno()), *arguments]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=(listener.fileno(),), start_new_session=True)
        try:
            yield Started(url=f"http://127.0.0.1:{listener.getsockname()[1]}", pid=process.pid)
        finally:
            _stop(process)


@contextmanager
def hub(folder: Path) -> Generator[tuple[Started, str]]:
    """Run the hub; yields it and its key."""
    data = folder / "data"
    with (folder / "hub.log").open("w") as log:
        command = [*INTERHUB, "--data-dir", str(data), "serve", "--port", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + START_S
        while not (data / "hub.json").exists():
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the hub did not start: {(folder / 'hub.log').read_text()[-1000:]}")
            time.sleep(0.02)
        url = str(json.loads((data / "hub.json").read_text())["url"])
        yield Started(url=url, pid=process.pid), (data / "api.key").read_text().strip()
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def register(folder: Path, agent_id: str, url: str) -> None:
    """Have the hub know a server."""
    command = [
        *INTERHUB,
        "--data-dir",
        str(folder / "data"),
        "agents",
        "add",
        url,
        "--name",
        agent_id,
        "--protocol",
        "mcp",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_S)
    if done.returncode:
        sys.exit(f"{agent_id} could not be registered: {done.stdout}{done.stderr}")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


async def first_call_ms(target: Target) -> float:
    """Return how long the first call takes on a connection that is open."""
    caller = Caller(target)
    try:
        await caller.open()
        began = time.perf_counter()
        await caller.call(1)
        return (time.perf_counter() - began) * 1000
    finally:
        caller.close()


async def measure(stub: Started, relay: Started, served: Started, key: str, rounds: int, seconds: float) -> None:
    watched = (served.pid,)
    pairs = [(caller, upstream) for caller in ("modern", "legacy") for upstream in ("modern", "legacy")]

    def at(caller: str, upstream: str, *, alone: bool = False) -> Target:
        path, tool = (f"/agents/{upstream}/mcp", "echo") if alone else ("/mcp", f"{upstream}__echo")
        return Target(url=f"{served.url}{path}", tool=tool, key=key, modern=caller == "modern")

    cold = [
        await first_call_ms(Target(url=f"{served.url}/mcp", tool=f"cold-{number}__echo", key=key))
        for number in range(COLD)
    ]
    print(f"first calls to servers that were not connected to: {', '.join(f'{each:.1f}' for each in cold)} ms")
    seen: dict[str, list[Seen]] = {}

    async def run(name: str, target: Target, callers: int, pids: Sequence[int] = ()) -> None:
        found = await load(target, callers=callers, seconds=seconds, pids=pids)
        seen.setdefault(name, []).append(found)
        print(
            f"{name:28} {callers:3} callers {found.calls_per_s:8.0f}/s  p50 {found.p50_ms:7.3f} ms"
            f"  p99 {found.p99_ms:7.3f} ms  {found.cpu_ms_per_call:.3f} ms of CPU"
        )

    for number in range(rounds):
        print(f"round {number + 1} of {rounds}")
        await run("relay", Target(url=f"{relay.url}/modern"), CALLERS, (relay.pid,))
        for caller, upstream in pairs:
            await run(f"hub {caller}-{upstream}", at(caller, upstream), CALLERS, watched)
        await run("alone modern-modern", at("modern", "modern", alone=True), CALLERS, watched)
        await run("alone legacy-legacy", at("legacy", "legacy", alone=True), CALLERS, watched)
        await run("stub, one", Target(url=f"{stub.url}/modern"), 1)
        await run("hub modern-modern, one", at("modern", "modern"), 1, watched)

    def ratios(one: str, other: str, of: str) -> float:
        """The median of a figure's ratios, round by round."""
        both = zip(seen[one], seen[other], strict=True)
        return round(median([getattr(mine, of) / getattr(theirs, of) for mine, theirs in both]), 3)

    best = "hub modern-modern"
    single = "hub modern-modern, one"
    both = zip(seen[single], seen["stub, one"], strict=True)
    print(
        json.dumps(
            {
                "rps_ratio": ratios(best, "relay", "calls_per_s"),
                "cpu_ratio": ratios(best, "relay", "cpu_ms_per_call"),
                "added_p50_ms": round(median([mine.p50_ms - theirs.p50_ms for mine, theirs in both]), 3),
                "cpu_ms_per_call": round(median([each.cpu_ms_per_call for each in seen[best]]), 3),
                "pairs": {
                    f"{caller}-{upstream}": ratios(f"hub {caller}-{upstream}", best, "calls_per_s")
                    for caller, upstream in pairs
                    if (caller, upstream) != ("modern", "modern")
                },
                "first_call_ms": round(median(cold[1:]), 1),
                "calls_per_s": round(median([each.calls_per_s for each in seen[best]])),
                "alone_rps_ratio": ratios("alone modern-modern", "relay", "calls_per_s"),
                "alone_cpu_ratio": ratios("alone modern-modern", "relay", "cpu_ms_per_call"),
            }
        )
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options.add_argument("--hold", action="store_true", help="print addresses and wait, to profile by hand")
    given = options.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interhub-bench-")))
        stub = stack.enter_context(program("benchmarks.direct.stub"))
        relay = stack.enter_context(program("benchmarks.direct.relay", f"{stub.url}/modern"))
        served, key = stack.enter_context(hub(folder))
        for era in ("modern", "legacy"):
            register(folder, era, f"{stub.url}/{era}")
        for number in range(COLD):
            register(folder, f"cold-{number}", f"{stub.url}/modern")
        if given.hold:
            print(json.dumps({"stub": stub.url, "relay": relay.url, "hub": served.url, "pid": served.pid, "key": key}))
            sys.stdin.read()
            return
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(stub, relay, served, key, given.rounds, given.seconds))


if __name__ == "__main__":
    main()
