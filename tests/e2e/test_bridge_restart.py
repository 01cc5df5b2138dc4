"""A host keeps its delegation over the bridge although the hub is killed under it."""

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

from tests.support.hub_process import COMMAND, cli, environment, hub_process, stop_background_hub
from tests.support.mcp_servers import EVERYTHING
from tests.support.mcp_site import Person, fields

pytestmark = pytest.mark.anyio

SLOW = {
    "goal": "take your time",
    "agent": "every",
    "capability": "slow",
    "arguments": {"seconds": 2},
    "wait_s": 60,
}


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_hub_killed_in_the_middle_is_started_again_and_the_same_run_ends_in_the_same_call(
    mode: str, tmp_path: Path
) -> None:
    command = cli(tmp_path)
    begun = anyio.Event()

    class Killer(Person):
        async def hear(self, progress: float, total: float | None, message: str | None) -> None:
            await super().hear(progress, total, message)
            if message and "begun" in message and not begun.is_set():
                begun.set()
                os.kill(hub.pid, signal.SIGKILL)

    person = Killer()
    bridge = StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "--data-dir", str(command.data_dir), "mcp"],
        env=environment(tmp_path),
    )
    try:
        with hub_process(command) as hub:
            added = command("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
            assert added.code == 0, added.err
            with anyio.fail_after(60):
                async with Client(bridge, mode=mode) as host:
                    run = fields(await host.call_tool("delegate", SLOW, progress_callback=person.hear))
                    again = fields(await host.call_tool("run_result", {"run_id": run["run_id"]}))
    finally:
        stop_background_hub(command)
    assert begun.is_set()
    assert (run["state"], run["answer"]) == ("completed", "slept"), run
    assert again["answer"] == "slept"
    assert {line for line in person.heard if line.endswith("submitted")} == {f"run {run['run_id']} submitted"}
