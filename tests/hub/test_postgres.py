"""A hub whose database, the engine's included, is on a PostgreSQL server."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.hub_process import Cli, cli, end, lines, wait_until_ready
from tests.support.postgres import PostgresServer, postgres_server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

AGENT = Path(__file__).resolve().parents[1] / "support" / "gated_server.py"
WORKFLOW = """
kind: workflow
name: three
steps:
  - {id: first, call: {agent: gated, message: first}}
  - {id: hold, call: {agent: gated, message: hold}}
  - {id: last, call: {agent: gated, message: "after {{ steps.hold.text }}"}}
"""

ONCE = ["first", "did first", "hold", "did hold", "after did hold", "did after did hold"]
"""What the agent notes of a run that goes through."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with postgres_server() as server:
        yield server


@dataclass(frozen=True)
class Site:
    """A hub's command, and the agent that waits."""

    command: Cli
    log: Path
    gate: Path

    def calls(self) -> list[str]:
        """What the agent was told, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def begin(self) -> str:
        """Begin the run, and return its id once the agent holds it."""
        self.gate.unlink(missing_ok=True)
        held = self.calls().count("hold")
        said = self.command("run", "--agent", "three", "go", "--detach", "--json")
        assert said.code == 0, said.err
        wait_for(lambda: self.calls().count("hold") > held)
        return str(said.document["id"])


@pytest.fixture
def site(tmp_path: Path, server: PostgresServer) -> Site:
    return Site(cli(tmp_path, {"INTERHUB_DATABASE_URL": server.url}), tmp_path / "log", tmp_path / "gate")


def wait_for(true: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def test_a_run_on_it_outlives_the_hub_and_a_restart_of_the_server(
    site: Site, server: PostgresServer, tmp_path: Path
) -> None:
    command = site.command
    (tmp_path / "three.yaml").write_text(WORKFLOW)
    process = command.start("serve", "--port", "0")
    try:
        wait_until_ready(command, process)
        agent = (sys.executable, "-W", "ignore", str(AGENT), str(site.log), str(site.gate))
        for arguments in (("--name", "gated", "--", *agent), (str(tmp_path / "three.yaml"),)):
            said = command("agents", "add", *arguments)
            assert said.code == 0, said.err
        run_id = site.begin()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
    finally:
        end(process)
    assert list(command.data_dir.glob("*.db")) == []

    again = command.start("serve", "--port", "0")
    try:
        wait_until_ready(command, again)
        site.gate.touch()
        ended = command("runs", "watch", run_id, "--json")
        assert ended.code == 0, ended.err
        assert site.calls() == [*ONCE[:3], *ONCE[2:]], "what was recorded is not done again"

        run_id = site.begin()
        server.stop()
        site.gate.touch()
        wait_for(lambda: site.calls()[-1] == "did hold")  # the agent answers while there is nobody to note it
        server.start()
        ended = command("runs", "watch", run_id, "--json")
        assert ended.code == 0, ended.err
        assert site.calls()[-len(ONCE) :] == ONCE
    finally:
        _, err = end(again)
    assert again.returncode == 0, err
    assert "Traceback" not in err, err


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    line = refusal(tmp_path, "postgresql://me:secret@127.0.0.1:1/hub")
    assert "postgresql+psycopg://me:***@127.0.0.1:1/hub cannot be used: the server cannot be reached" in line
    assert line.endswith("Connection refused; start the server, or correct the URL")


def test_a_wrong_password_is_said(server: PostgresServer, tmp_path: Path) -> None:
    rules = server.data / "pg_hba.conf"
    rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        connection.execute("SELECT pg_reload_conf()")
    line = refusal(tmp_path, server.url.replace("postgres:@", "locked:wrong@"))
    assert line.endswith('password authentication failed for user "locked"; correct user and password')
    assert "wrong" not in line


def test_a_user_who_may_not_make_the_engines_tables_is_said(server: PostgresServer, tmp_path: Path) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE small LOGIN")
        connection.execute("CREATE DATABASE narrow")
    url = server.url.replace("/postgres?", "/narrow?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT ALL ON SCHEMA public TO small")
    line = refusal(tmp_path, url.replace("postgres:@", "small:@"))
    assert line.endswith("the database of `database_url` cannot be used: permission denied for database narrow")


def refusal(folder: Path, url: str) -> str:
    """Return the one line of a hub that cannot start on a database."""
    said = cli(folder, {"INTERHUB_DATABASE_URL": url})("serve", "--port", "0")
    assert said.code == 4
    (line,) = [line for line in lines(said.err) if not line.startswith("{")]
    return line
