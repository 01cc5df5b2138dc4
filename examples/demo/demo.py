"""The main job, seen: a goal given by an MCP client is carried out by agents of four kinds that share no environment.

    make demo               runs it, and keeps the hub serving until Ctrl-C
    make demo ARGS=--once   runs it and ends; exit code 0 only if the result came from all four agents

Everything is done as a user would do it: with the `interhub` command, and with an ordinary MCP client.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("DEMO_HOME") or ROOT / ".interhub" / "demo").resolve()
DATA = HOME / "data"
BIN = Path(sys.executable).parent
GOAL = "Durable delegation between AI agents"
ENVIRONMENT = {
    **os.environ,
    "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "LANGSMITH_TRACING": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}


class DemoFailed(Exception):
    """One line that says what went wrong and what to do."""


def say(text: str = "") -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the result instead of serving on")
    parser.add_argument("--port", type=int, default=0, help="port of the hub (default 7337, or a free one)")
    options = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, interrupt)
    say("interhub demo: four agents, four environments, one goal\n")
    try:
        refuse_a_second_demo()
        environments = make_environments()
        with contextlib.ExitStack() as running:
            url = running.enter_context(hub(options.port or free_port(7337)))
            reviewer = running.enter_context(a2a_agent(environments["a2a_agent"]))
            register(environments, reviewer)
            result = asyncio.run(delegate(url))
            complete = show(result, time.monotonic() - started)
            if options.once:
                return 0 if complete else 1
            say_how_to_connect()
            wait_for_interrupt()
    except KeyboardInterrupt:
        say()
    except Exception as failure:  # the edge: a newcomer gets one line, and where to read on
        while isinstance(failure, ExceptionGroup):
            failure = failure.exceptions[0]
        where = "" if isinstance(failure, DemoFailed) else f"; see {relative(HOME / 'hub.log')}"
        print(f"demo: {failure}{where}", file=sys.stderr)
        return 1
    return 0


# What must be there first


def refuse_a_second_demo() -> None:
    state = DATA / "hub.json"
    if state.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError):
            known = json.loads(state.read_text())
            os.kill(int(known["pid"]), 0)
            raise DemoFailed(f"a demo is already running at {known['url']}; stop it with Ctrl-C first")
    DATA.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in DATA.iterdir():  # begin anew, but keep what took long to build
        if old.is_file():
            old.unlink()


def make_environments() -> dict[str, Path]:
    """Build the agents' environments side by side; the second time they are there already."""
    say("1. environments: each agent has its own, from hash-locked requirements")
    with ThreadPoolExecutor() as at_once:
        workers = at_once.submit(timed, "LangGraph and CrewAI", sync_workers)
        others = {
            name: at_once.submit(timed, title, build_environment, name)
            for name, title in (("a2a_agent", "the A2A agent (a2a-sdk)"), ("mcp_time", "mcp-server-time"))
        }
        workers.result()
        return {name: future.result() for name, future in others.items()}


def timed(title: str, do: Any, *arguments: Any) -> Any:
    begun = time.monotonic()
    value = do(*arguments)
    say(f"   {title:<28} ready ({time.monotonic() - begun:.1f} s)")
    return value


def sync_workers() -> None:
    interhub("workers", "sync", "langgraph", "crewai")


def build_environment(name: str) -> Path:
    """Make a virtual environment from `examples/requirements/{name}.txt`, in one piece or not at all."""
    requirements = ROOT / "examples" / "requirements" / f"{name}.txt"
    target = HOME / "envs" / name
    stamp = target / "requirements.txt"
    if stamp.is_file() and stamp.read_bytes() == requirements.read_bytes():
        return target / "bin" / "python"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    python = target / "bin" / "python"
    for command in (
        [BIN / "uv", "venv", "--quiet", "--python", sys.executable, target],
        [BIN / "uv", "pip", "install", "--quiet", "--require-hashes", "--python", python, "-r", requirements],
    ):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["uv said nothing"])[-1]
            raise DemoFailed(f"the environment of {name} could not be built: {last}")
    stamp.write_bytes(requirements.read_bytes())
    return python


# What runs


@contextlib.contextmanager
def hub(port: int) -> Iterator[str]:
    say("\n2. the hub")
    begun = time.monotonic()
    log = (HOME / "hub.log").open("w")
    command = [BIN / "interhub", "--data-dir", DATA, "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answers(port, process, "the hub", HOME / "hub.log")
        wait_until_ready(process)
        say(f"   serving at {url} ({time.monotonic() - begun:.1f} s), its log: {relative(HOME / 'hub.log')}")
        yield url
    finally:
        stop(process)
        log.close()


@contextlib.contextmanager
def a2a_agent(python: Path) -> Iterator[str]:
    port = free_port(7338)
    log = (HOME / "a2a_agent.log").open("w")
    command = [python, ROOT / "examples" / "a2a_agent.py", "--port", str(port), "--log", HOME / "a2a_agent.jsonl"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True)
    try:
        wait_until_answers(port, process, "the A2A agent", HOME / "a2a_agent.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)
        log.close()


def register(environments: dict[str, Path], reviewer: str) -> None:
    say("\n3. agents, registered from outside as a user would")
    workers, demo = ROOT / "examples" / "workers", ROOT / "examples" / "demo"
    for arguments in (
        ["--name", "notes", "--framework", "langgraph", f"{workers / 'langgraph_notes.py'}:graph"],
        ["--name", "writers", "--framework", "crewai", f"{workers / 'crewai_writers.py'}:crew"],
        ["--name", "fact-checker", reviewer],
        ["--name", "clock", "--", str(environments["mcp_time"]), "-m", "mcp_server_time"],
        [str(demo / "review-desk.yaml")],
        [str(demo / "newsroom.yaml")],
        [str(demo / "briefing.yaml")],
    ):
        begun = time.monotonic()
        interhub("agents", "add", *arguments)
        shown = " ".join(shorter(argument) for argument in arguments)
        say(f"   interhub agents add {shown}  ({time.monotonic() - begun:.1f} s)")


async def delegate(url: str) -> dict[str, Any]:
    """Call `delegate` as any MCP client would, and show the progress it reports."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    say(f'\n4. an MCP client calls delegate(agent="briefing", goal="{GOAL}")')
    key = (DATA / "api.key").read_text().strip()
    begun = time.monotonic()

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        say(f"   {time.monotonic() - begun:5.1f} s  {message or ''}")

    timeout = httpx2.Timeout(30, read=300)
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=timeout) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        arguments = {"goal": GOAL, "agent": "briefing", "wait_s": 240}
        answer = await client.call_tool("delegate", arguments, progress_callback=on_progress)
    if not isinstance(answer.structured_content, dict):
        raise DemoFailed(f"the hub answered without a result: {answer.content}")
    return answer.structured_content


def show(result: dict[str, Any], seconds: float) -> bool:
    """Print the result and who did what; return whether all four agents took part and all went well."""
    say(f"\n5. the result (run {result.get('run_id')}, {result.get('state')})\n")
    say("\n".join(f"   {line}" for line in said(result).splitlines()))
    say("\n   who did what")
    for step in result.get("steps", []):
        who = f"{step.get('step', ''):<24} {step.get('agent', ''):<14}"
        say(f"   {who} {step.get('state', ''):<10} {step.get('seconds') or 0:6.2f} s")
    took_part = {step.get("agent") for step in result.get("steps", []) if step.get("state") == "completed"}
    missing = {"notes", "writers", "fact-checker", "clock"} - took_part
    if missing:
        say(f"\n   missing: {', '.join(sorted(missing))}; see {relative(HOME / 'hub.log')}")
    say(f"\n   {seconds:.0f} s from the command to the result")
    return not missing and result.get("state") == "completed"


def said(result: dict[str, Any]) -> str:
    error = result.get("error") or {}
    return str(result.get("answer") or error.get("message") or result.get("next") or "")


def say_how_to_connect() -> None:
    data = relative(DATA)
    say(
        f"""
Now with your own client (the demo keeps serving until Ctrl-C):

   Claude Desktop   .venv/bin/interhub --data-dir {data} connect claude-desktop
   Claude Code      .venv/bin/interhub --data-dir {data} connect claude-code
   Cursor, VS Code  .venv/bin/interhub --data-dir {data} connect cursor        (or: vscode)

   and ask it:      "Delegate to interhub's briefing agent: {GOAL}"

   watch            .venv/bin/interhub --data-dir {data} runs list"""
    )


# Small things


def interhub(*arguments: str) -> str:
    """Run the `interhub` command on the demo's data directory; its own words are the error."""
    command = [str(BIN / "interhub"), "--data-dir", str(DATA), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if ended.returncode:
        raise DemoFailed(f"`interhub {' '.join(arguments[:2])}` failed: {(ended.stderr or ended.stdout).strip()}")
    return ended.stdout


def free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoFailed("no port is free on 127.0.0.1")


def wait_until_answers(port: int, process: subprocess.Popen[bytes], who: str, log: Path, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
            raise DemoFailed(f"{who} ended at once: {last}")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise DemoFailed(f"{who} did not answer within {limit_s:.0f} s; see {relative(log)}")


def wait_until_ready(process: subprocess.Popen[bytes], limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not (DATA / "api.key").is_file() or not (DATA / "hub.json").is_file():
        if time.monotonic() > deadline or process.poll() is not None:
            raise DemoFailed(f"the hub did not become ready; see {relative(HOME / 'hub.log')}")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_interrupt() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            signal.pause()
    say("\nstopping ...")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def shorter(argument: str) -> str:
    path = argument.replace(str(ROOT) + os.sep, "")
    return path if len(path) <= 60 else "..." + path[-57:]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
