import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_process import Cli, HubProcess, cli, end, hub_process, lines, wait_until_ready

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

TOO_NEW = "0999"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("serve"))) as running:
        yield running


def _refused(command: Cli, *arguments: str) -> tuple[int, str]:
    """Return code and the one line of a `serve` that may not start."""
    said = command("serve", *(arguments or ("--port", "0")))
    assert "Traceback" not in said.err
    told = [line for line in lines(said.err) if not line.startswith("{")]
    assert len(told) == 1, said.err
    assert told[0].startswith("interhub: ")
    return said.code, told[0]


def test_it_is_ready_and_says_so(hub: HubProcess) -> None:
    status, body, headers = hub.get("/readyz", key="")
    assert (status, json.loads(body)["ready"]) == (200, True)
    assert "server" not in {name.lower() for name in headers}
    assert hub.get("/healthz", key="")[0] == 200
    assert json.loads((hub.cli.data_dir / "hub.json").read_text())["pid"] == hub.pid


def test_every_face_answers_those_with_the_key_and_nobody_else(hub: HubProcess) -> None:
    for path in ("/api/agents", "/mcp", "/a2a", "/agents/nobody/mcp"):
        assert hub.get(path, key="")[0] == 401, path
        assert hub.get(path, key="ih_" + "x" * 43)[0] == 401, path
    assert hub.get("/api/agents")[0] == 200
    assert hub.get("/.well-known/agent-card.json")[0] == 200
    assert hub.get("/mcp")[0] in (400, 405, 406)
    assert hub.get("/agents/nobody/mcp")[0] == 404
    assert hub.get("/nothing/here")[0] == 404


def test_a_second_hub_on_the_same_directory_is_told_of_the_first(hub: HubProcess) -> None:
    code, line = _refused(hub.cli)
    assert code == 5
    assert f"already running on {hub.cli.data_dir} at {hub.url} (process {hub.pid})" in line


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = _refused(cli(tmp_path), "--port", str(port))
    assert code == 6
    assert f"port {port} on 127.0.0.1 is in use by another program; choose another with --port" in line
    with hub_process(cli(tmp_path)):
        pass  # and it left nothing behind that keeps the next one from starting


def test_an_address_that_others_reach_is_refused_without_key_and_names(tmp_path: Path) -> None:
    said = cli(tmp_path)("serve", "--host", "0.0.0.0", "--port", "0")
    assert said.code == 4
    assert "INTERHUB_AUTH__KEY" in said.err
    assert "INTERHUB_SERVER__ALLOWED_HOSTS" in said.err
    assert not (tmp_path / "data").exists()


def test_with_key_and_names_it_serves_others_under_these_names_alone(tmp_path: Path) -> None:
    key = "ih_" + "k" * 43
    env = {"INTERHUB_AUTH__KEY": key, "INTERHUB_SERVER__ALLOWED_HOSTS": "hub.example.com"}
    with hub_process(cli(tmp_path, env), "--host", "0.0.0.0") as running:
        assert running.get("/api/agents", key=key)[0] == 200
        assert running.get("/api/agents")[0] == 401, "the key in the data directory does not count beside a chosen one"
        port = running.url.rpartition(":")[2]
        for host, expected in (("hub.example.com", b" 200 "), ("evil.example", b" 421 ")):
            with socket.create_connection(("127.0.0.1", int(port))) as raw:
                head = f"GET /api/agents HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
                raw.sendall(head.encode())
                assert expected in raw.makefile("rb").readline()


def test_a_data_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    code, line = _refused(cli(tmp_path))
    assert code == 4
    assert f"the data directory {tmp_path / 'data'} cannot be used" in line
    assert "choose another with --data-dir" in line


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that root cannot write either")
def test_a_read_only_data_directory_is_said(tmp_path: Path) -> None:
    command = Cli(Path("/proc/interhub"), tmp_path, tmp_path, {})
    code, line = _refused(command)
    assert code == 4
    assert "the data directory /proc/interhub cannot be used" in line


def test_a_database_from_a_newer_version_is_said_and_left_alone(tmp_path: Path) -> None:
    command = cli(tmp_path)
    with hub_process(command):
        pass
    file = command.data_dir / "interhub.db"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (TOO_NEW,))
    database.close()
    code, line = _refused(command)
    assert code == 4
    assert TOO_NEW in line
    assert "upgrade interhub" in line


@pytest.mark.parametrize("name", ["interhub.db", "engine.db"])
def test_a_corrupt_database_is_said(tmp_path: Path, name: str) -> None:
    command = cli(tmp_path)
    command.data_dir.mkdir()
    (command.data_dir / name).write_bytes(b"this is no database, " * 500)
    code, line = _refused(command)
    assert code == 4
    assert name in line


def test_settings_that_are_wrong_are_said(tmp_path: Path) -> None:
    said = cli(tmp_path, {"INTERHUB_SERVER__PROT": "1"})("serve")
    assert said.code == 4
    assert "INTERHUB_SERVER__PROT is no setting; did you mean INTERHUB_SERVER__PORT?" in said.err
    said = cli(tmp_path)("serve", "--port", "99999")
    assert said.code == 4
    assert "server.port" in said.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with hub_process(cli(tmp_path)) as running:
        running.process.send_signal(number)
        running.process.wait(timeout=20)
        log = (running.cli.home / "hub.log").read_text()
        assert running.process.returncode == 0, log
        assert "hub_stopped" in log
        assert "Traceback" not in log
        assert not (running.cli.data_dir / "hub.json").exists()


def test_an_open_event_stream_does_not_hold_it_up(tmp_path: Path) -> None:
    command = cli(tmp_path)
    with hub_process(command) as running:
        body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": _listen_params()}
        content = json.dumps(body)
        port = int(running.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall(
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {running.key}\r\n"
                "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
                "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: subscriptions/listen\r\n"
                f"Content-Length: {len(content)}\r\n\r\n{content}".encode()
            )
            reader = raw.makefile("rb")
            assert b" 200 " in reader.readline()
            began = time.monotonic()
            running.process.terminate()
            assert reader.read().endswith(b"0\r\n\r\n"), "the stream ends as a stream should"
        running.process.communicate(timeout=20)
        assert running.process.returncode == 0
        assert time.monotonic() - began < 8.0


def _listen_params() -> dict[str, object]:
    client = {"name": "test", "version": "1"}
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": client,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"notifications": {"toolsListChanged": True}, "_meta": meta}


def test_after_kill_9_it_starts_again_with_what_it_knew(tmp_path: Path) -> None:
    command = cli(tmp_path)
    process = command.start("serve", "--port", "0")
    try:
        url = wait_until_ready(command, process)
        workflow = tmp_path / "hello.yaml"
        workflow.write_text(
            "kind: workflow\nname: hello\nsteps:\n  - id: later\n    call: {need: '{{ goal }}', message: hi}\n"
        )
        assert command("agents", "add", str(workflow)).code == 0
        port = url.rpartition(":")[2]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
        assert (command.data_dir / "hub.json").exists(), "it had no time to put things in order"
        assert command("agents", "list").code == 3
    finally:
        end(process)
    again = command.start("serve", "--port", port)
    try:
        assert wait_until_ready(command, again) == url, "the same port is free at once"
        assert [agent["id"] for agent in command("agents", "list", "--json").document["agents"]] == ["hello"]
    finally:
        end(again)


def test_it_takes_less_than_200_megabytes_with_every_face_loaded(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    with hub_process(cli(tmp_path)) as running:
        assert running.get("/mcp")[0] in (400, 405, 406), "the protocols' faces are loaded"
        status = Path(f"/proc/{running.pid}/status").read_text()
        resident = next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < 200


def test_help_comes_at_once_and_without_the_libraries(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom interhub.hub.cli import main\ncode = main(['--help'])\n"
        "heavy = {'sqlalchemy', 'dbos', 'mcp', 'a2a', 'pydantic', 'starlette', 'numpy'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "One hub between every MCP client and every agent" in ended.stdout
