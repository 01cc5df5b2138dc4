"""What the hub has started ends with the hub, also when nobody could end it."""
# ruff: noqa: ASYNC220, ASYNC222 -- the processes are the subject, and nothing else runs on the loop

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from interhub.adapters.guardian import Guardian

pytestmark = pytest.mark.anyio

# A server that ignores its closed input, and SIGTERM, and has a child: what `kill -9` of the hub used to leave behind.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as file: file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""
HUB = """
import sys, anyio
from interhub.adapters import AdapterError
from interhub.adapters.mcp import McpAdapter
from interhub.agent_cards import Binding, Endpoint
async def main():
    endpoint = Endpoint(binding=Binding.MCP_STDIO, command=(sys.executable, "-c", sys.argv[1], sys.argv[2]))
    await McpAdapter(startup_timeout_s=120).describe(endpoint)
anyio.run(main)
"""


def runs(pid: int) -> bool:
    """Whether a process lives; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(*pids: int) -> None:
    with anyio.fail_after(15):
        while any(map(runs, pids)):  # noqa: ASYNC110 -- another process's end can only be asked for
            await anyio.sleep(0.02)


async def test_a_killed_hub_leaves_no_server_behind_however_stubborn(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hub = subprocess.Popen([sys.executable, "-W", "ignore", "-c", HUB, STUBBORN, str(pids)])
    try:
        with anyio.fail_after(30):
            while not pids.exists():  # noqa: ASYNC110 -- another process writes it
                await anyio.sleep(0.02)
        server, child = map(int, pids.read_text().split())
        assert runs(server)
        assert runs(child)
    finally:
        hub.send_signal(signal.SIGKILL)
        hub.wait()
    await gone(server, child)


async def test_a_guardian_that_is_killed_is_replaced_and_knows_all_groups() -> None:
    guardian = Guardian()
    first, second = (subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2))
    try:
        guardian.watch(first.pid)
        before = guardian.pid
        os.kill(before, signal.SIGKILL)
        os.waitpid(before, 0)
        guardian.watch(second.pid)
        assert guardian.pid != before
        guardian.forget(second.pid)
        after = guardian.pid
        guardian.close()
        os.waitpid(after, 0)
        await gone(first.pid)
        assert first.wait() == -signal.SIGTERM
        assert second.poll() is None
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
