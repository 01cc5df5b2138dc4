import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import anyio
import pytest
from mcp import Client, StdioServerParameters

from interhub.hub.daemon import StartFailed, ensure_hub, find_hub, is_ready, stop_hub
from interhub.hub.datadir import DataDir, RunningHub
from interhub.hub.errors import HubNotRunning
from interhub.hub.settings import Server, Settings
from tests.support.hub_process import COMMAND, Cli, cli, environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes")

ASK = """
import sys
from pathlib import Path
from interhub.hub.daemon import ensure_hub
from interhub.hub.settings import load
print("ready", flush=True)
sys.stdin.readline()
print(ensure_hub(load(arguments={"data_dir": sys.argv[1]})).pid, flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Cli]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    made = cli(tmp_path, {"INTERHUB_SERVER__PORT": str(port)})
    yield made
    made("stop")


def test_two_who_need_a_hub_at_once_start_one(command: Cli) -> None:
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(command.data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(command.home, command.env),
        )
        for _ in range(3)
    ]
    try:
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == "ready\n"
        for asker in askers:
            assert asker.stdin is not None
            asker.stdin.write("go\n")
            asker.stdin.flush()
        said = [asker.communicate(timeout=90)[0].strip() for asker in askers]
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()
    assert len(set(said)) == 1
    hub = find_hub(DataDir(command.data_dir))
    assert str(hub.pid) == said[0]
    assert is_ready(hub)
    log = (command.data_dir / "logs" / "hub.log").read_text()
    assert log.count("hub_ready") == 1


def test_a_hub_that_runs_is_found_and_not_started_again(command: Cli) -> None:
    settings = Settings(data_dir=command.data_dir, server=Server(port=int(command.env["INTERHUB_SERVER__PORT"])))
    with _environment(command):
        first = ensure_hub(settings)
        assert ensure_hub(settings) == first
    stopped = stop_hub(DataDir(command.data_dir))
    assert stopped == first
    assert not DataDir(command.data_dir).is_held()
    with pytest.raises(HubNotRunning):
        stop_hub(DataDir(command.data_dir))


def test_when_another_program_has_the_usual_port_a_free_one_is_taken(tmp_path: Path) -> None:
    made = cli(tmp_path)
    with socket.create_server(("127.0.0.1", 7337)) if _free(7337) else socket.socket():
        settings = Settings(data_dir=made.data_dir)
        with _environment(made):
            hub = ensure_hub(settings)
        try:
            assert is_ready(hub)
            assert not hub.url.endswith(":7337")
        finally:
            stop_hub(DataDir(made.data_dir))


def test_a_port_that_somebody_chose_is_not_exchanged_for_another(command: Cli) -> None:
    port = int(command.env["INTERHUB_SERVER__PORT"])
    with socket.create_server(("127.0.0.1", port)), _environment(command), pytest.raises(StartFailed) as failed:
        ensure_hub(Settings(data_dir=command.data_dir, server=Server(port=port)))
    assert f"port {port} on 127.0.0.1 is in use by another program" in str(failed.value)
    assert str(command.data_dir / "logs" / "hub.log") in str(failed.value)


def test_a_hub_that_cannot_start_says_why(command: Cli) -> None:
    command.data_dir.mkdir()
    (command.data_dir / "interhub.db").write_bytes(b"no database" * 100)
    with _environment(command), pytest.raises(StartFailed, match=r"interhub\.db"):
        ensure_hub(Settings(data_dir=command.data_dir))


def test_what_a_killed_hub_left_behind_is_no_hub(tmp_path: Path) -> None:
    home = DataDir(tmp_path)
    home.prepare()
    home.announce(RunningHub(pid=1, url="http://127.0.0.1:1", version="0"))
    with pytest.raises(HubNotRunning, match="start one with `interhub serve`"):
        find_hub(home)


def test_a_hub_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    class Starting(DataDir):
        def running(self) -> RunningHub | None:
            """Nobody at the first look, and somebody at the next."""
            found = super().running()
            if found is None:
                self.announce(RunningHub(pid=1, url="http://127.0.0.1:1", version="0"))
            return found

    home = Starting(tmp_path)
    home.prepare()
    with home.hold():
        with pytest.raises(HubNotRunning, match=r"one was not ready within 0 s"):
            find_hub(DataDir(tmp_path), wait_s=0)
        assert find_hub(home).url == "http://127.0.0.1:1"


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class _environment:  # reads as what it does
    """The environment of a command, in this process."""

    def __init__(self, command: Cli) -> None:
        self._wanted = environment(command.home, command.env)

    def __enter__(self) -> None:
        self._before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self._wanted)

    def __exit__(self, *raised: object) -> None:
        os.environ.clear()
        os.environ.update(self._before)


@pytest.mark.anyio
async def test_two_stdio_hosts_share_one_hub_and_see_the_same_runs(command: Cli) -> None:
    server = StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "--data-dir", str(command.data_dir), "mcp"],
        env=environment(command.home, command.env),
        cwd=command.cwd,
    )
    with anyio.fail_after(90):
        async with Client(server) as one, Client(server) as other:
            names = {tool.name for tool in (await one.list_tools()).tools}
            assert {"delegate", "run_status", "run_result", "run_cancel", "answer", "find", "call"} <= names
            begun = await one.call_tool("delegate", {"goal": "nobody can do this", "wait_s": 30})
            run_id = cast("dict[str, str]", begun.structured_content)["run_id"]
            seen = await other.call_tool("run_status", {"run_id": run_id})
            assert cast("dict[str, str]", seen.structured_content)["run_id"] == run_id
    hub = find_hub(DataDir(command.data_dir))
    assert is_ready(hub), "the hub outlives the hosts that started it"
    assert command("runs", "list", "--json").document["runs"][0]["id"] == run_id
