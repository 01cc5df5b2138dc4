import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_process import COMMAND, Cli, HubProcess, cli, end, environment, hub_process

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = (sys.executable, str(ROOT / "examples" / "everything_server.py"))

ECHO = """kind: workflow
name: echo
description: Says what it was told.
steps:
  - id: say
    call: {agent: every, capability: reflect, arguments: {said: "{{ goal }}"}}
output: "{{ steps.say.text }}"
"""
SLOW = """kind: workflow
name: slow
steps:
  - id: wait
    call: {agent: every, capability: slow, arguments: {seconds: 60}}
"""
NESTED = """kind: workflow
name: nested
steps:
  - id: around
    loop:
      at_most: 1
      until: "true"
      steps: [{id: inner, call: {agent: every, capability: test_error_handling}}]
"""
LOUD = '''"""Who makes noise."""


def shout(text: str) -> str:
    """Say it loudly."""
    if not text:
        raise ValueError("there is nothing to shout")
    return text.upper()


def count(words: list[int]) -> int:
    """Count."""
    return len(words)


voices = {"shout": shout, "count": count}
'''


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with hub_process(cli(tmp_path_factory.mktemp("cli"))) as running:
        said = running.cli("agents", "add", "--name", "every", "--", *EVERYTHING)
        assert said.code == 0, said.err
        yield running


@pytest.fixture
def run(hub: HubProcess) -> Cli:
    return hub.cli


def _file(run: Cli, name: str, text: str) -> str:
    (run.cwd / name).write_text(text)
    return name


# Agents


def test_an_mcp_server_added_by_its_command_is_listed_and_shown(run: Cli) -> None:
    listed = run("agents", "list")
    assert (listed.code, listed.err) == (0, "")
    assert "every  mcp" in listed.out
    shown = run("agents", "show", "every")
    assert "MCP-STDIO" in shown.out
    assert "tool add" in shown.out
    document = run("agents", "show", "every", "--json").document
    assert document["health"]["state"] == "healthy"
    assert document["endpoint"]["command"][0] == sys.executable


def test_plain_functions_of_a_file_are_an_agent_that_the_hub_runs_itself(run: Cli) -> None:
    _file(run, "loud.py", LOUD)
    said = run("agents", "add", "loud.py:voices", "--framework", "local", "--name", "loud")
    assert (said.code, said.out) == (0, "Added loud (local): shout, count\n"), said.err
    shown = run("agents", "show", "loud", "--json").document
    assert shown["description"] == "Who makes noise."
    assert shown["endpoint"]["options"]["target"] == f"{run.cwd / 'loud.py'}:voices"
    assert run("run", "--agent", "loud", "--capability", "count", "--input", "words=[1, 2]").out == "2\n"
    refused = run("run", "--agent", "loud", "--capability", "shout", "--input", "text=")
    assert (refused.code, "ValueError: there is nothing to shout" in refused.out) == (1, True)
    assert run("agents", "remove", "loud").code == 0


def test_a_duplicate_name_is_refused_in_one_line(run: Cli) -> None:
    said = run("agents", "add", "--name", "every", "--", *EVERYTHING)
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "interhub: an agent is already registered as 'every'; choose another with --name, or remove it first\n"
    )


def test_with_json_an_error_is_a_document_on_stdout(run: Cli) -> None:
    said = run("agents", "show", "nobody", "--json")
    assert (said.code, said.err) == (1, "")
    assert said.document["error"]["code"] == "AGENT_NOT_FOUND"
    assert said.document["error"]["status"] == 404


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to add was given"),
        (("nowhere.json",), "nowhere.json is no http(s) URL, and there is no such file"),
        (("localhost:9999/mcp",), "for an address, write http://localhost:9999/mcp"),
        (("--framework", "langgraph", "gone.py:graph"), "there is no file"),
        (("agent.py:graph",), "needs to know its framework"),
        (("agent.py",), "names no object in the file"),
        (("--header", "nonsense", "http://127.0.0.1:1"), "--header 'nonsense' is not NAME:VALUE"),
        (("--env", "A=B", "http://127.0.0.1:1"), "--env cannot go with a URL"),
        (("--name", "Not An Id", "http://127.0.0.1:1"), "cannot be an agent's id"),
        (("http://127.0.0.1:1/mcp",), "could not be reached"),
        (("http://127.0.0.1:1", "--", "x"), "give one of them"),
        (("--", "/no/such/program"), "/no/such/program"),
        (("--protocol", "soap", "http://127.0.0.1:1"), "soap"),
        (("--framework", "local", "gone.py:shout"), "there is no file"),
        (("--framework", "local", "agent.py"), "give it as agent.py:NAME"),
        (("--framework", "local", "agent.py:nobody"), "has no 'nobody'"),
        (("--framework", "local", "agent.py:graph"), "there is nothing in it that can be called"),
        (("--framework", "local", "torn.py:shout"), "does not import: SyntaxError"),
        (("--framework", "local", "--env", "A=B", "agent.py:graph"), "--env cannot go with functions that run in the"),
        (("--framework", "local", "--requirements", "r.txt", "agent.py:graph"), "--requirements cannot go with"),
        (("--framework", "local", "--header", "A: B", "agent.py:graph"), "--header cannot go with functions that run"),
        (("--framework", "local", "http://127.0.0.1:1"), "--framework cannot go with a URL"),
        (("--framework", "local", "--", "x"), "--framework cannot go with a command"),
    ],
)
def test_what_cannot_be_added_is_said_in_one_line(run: Cli, arguments: tuple[str, ...], said: str) -> None:
    _file(run, "agent.py", "graph = 1\n")
    _file(run, "torn.py", "def shout(:\n")
    answer = run("agents", "add", *arguments)
    assert answer.code == 1
    assert answer.err.startswith("interhub: ")
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1, answer.err


def test_the_servers_of_another_program_are_all_added_and_each_failure_is_told(run: Cli) -> None:
    servers = {
        "good one": {"command": EVERYTHING[0], "args": [EVERYTHING[1]]},
        "dead": {"url": "http://127.0.0.1:1/mcp"},
        "switched off": {"command": "x", "disabled": True},
    }
    file = _file(run, "mcp.json", json.dumps({"mcpServers": servers}))
    said = run("agents", "add", file, "--json")
    assert said.code == 1
    document = said.document
    assert [agent["id"] for agent in document["added"]] == ["good-one"]
    assert [failed["id"] for failed in document["failed"]] == ["dead"]
    assert "could not be reached" in document["failed"][0]["error"]["detail"]
    assert "switched off" in document["left_out"][0]
    assert run("agents", "remove", "good-one").out == "Removed good-one.\n"
    assert run("agents", "remove", "good-one").code == 1


def test_an_agent_is_refreshed(run: Cli) -> None:
    assert "Refreshed every (mcp)" in run("agents", "refresh", "every").out


def test_find_says_who_and_why(run: Cli) -> None:
    said = run("find", "add two numbers", "--explain", "--limit", "1")
    assert "every/add" in said.out
    assert "shares 'add'" in said.out
    assert run("find", "add two numbers", "--json").document["matches"][0]["capability"] == "add"


# Runs


def test_a_workflow_file_is_run_and_its_steps_are_told(run: Cli) -> None:
    said = run("run", "--workflow", _file(run, "echo.yaml", ECHO), "hello there")
    assert said.code == 0
    assert "hello there" in said.out
    assert "say (every) completed" in said.err
    listed = run("runs", "list", "--json").document["runs"]
    shown = run("runs", "show", listed[0]["id"][:8])
    assert "completed" in shown.out
    assert "hello there" in shown.out


def test_what_ends_within_another_step_is_told_before_it_and_lines_stay_whole(run: Cli) -> None:
    said = run("run", "--workflow", _file(run, "nested.yaml", NESTED))
    assert said.code == 1
    run_line, *told = said.err.splitlines()
    assert run_line.startswith("run ")
    assert [line.split()[0] for line in told if " failed in " in line] == ["around.1.inner", "around"]
    assert [line for line in told if not line.startswith("  around")] == []


def test_a_registered_workflow_is_given_work_by_its_name(run: Cli) -> None:
    assert run("agents", "add", _file(run, "echo.yaml", ECHO)).code == 0
    document = run("run", "--agent", "echo", "once more", "--json").document
    assert document["state"] == "completed"
    assert [step["agent_id"] for step in document["steps"]] == ["every"]
    assert run("agents", "remove", "echo").code == 0


def test_one_capability_of_an_agent_is_used(run: Cli) -> None:
    said = run("run", "--agent", "every", "--capability", "add", "--input", "a=2", "--input", "b=3")
    assert (said.code, said.out) == (0, "5\n")


def test_a_run_that_fails_ends_the_command_with_1(run: Cli) -> None:
    said = run("run", "--agent", "every", "--capability", "test_error_handling")
    assert said.code == 1
    assert "failed" in said.out


def test_a_goal_that_nobody_can_do_says_so(run: Cli) -> None:
    said = run("run", "bake a chocolate cake for nine")
    assert said.code == 1
    assert "no registered agent can do" in said.out


def test_mistakes_in_a_workflow_are_told_with_their_lines(run: Cli) -> None:
    file = _file(run, "bad.yaml", ECHO.replace("agent: every", "agent: evry").replace("steps.say", "steps.sey"))
    for arguments in (("workflows", "check", file), ("run", "--workflow", file, "x"), ("agents", "add", file)):
        said = run(*arguments)
        assert said.code == 1, arguments
        assert f"{file}:6, " in said.err
        assert "evry" in said.err
    assert "no mistakes" in run("workflows", "check", _file(run, "echo.yaml", ECHO)).out
    assert (
        run("workflows", "check", "none.yaml").err == "interhub: none.yaml cannot be read: no such file or directory\n"
    )


def test_a_detached_run_is_watched_cancelled_and_then_ended(run: Cli) -> None:
    run_id = run("run", "--workflow", _file(run, "slow.yaml", SLOW), "--detach").out.strip()
    watcher = run.start("runs", "watch", run_id)
    try:
        assert watcher.stderr is not None
        assert run_id in watcher.stderr.readline()
        assert "wait (every) working" in watcher.stderr.readline()
        assert run("runs", "cancel", run_id).out == f"Run {run_id} is canceled.\n"
        _, err = watcher.communicate(timeout=30)
        assert watcher.returncode == 1
        assert "wait (every) canceled" in err
    finally:
        end(watcher)
    assert run("runs", "cancel", run_id).err == f"interhub: run {run_id} has already ended (canceled)\n"
    assert run("runs", "show", "no-such-run").code == 1


def test_ctrl_c_leaves_the_run_going_and_says_how_to_go_on(run: Cli) -> None:
    process = run.start("run", "--workflow", _file(run, "slow.yaml", SLOW))
    try:
        assert process.stderr is not None
        run_id = process.stderr.readline().split()[1]
        assert "working" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        end(process)
    assert process.returncode == 130
    assert f"interhub runs watch {run_id}" in err
    assert "Traceback" not in err
    assert run("runs", "show", run_id, "--json").document["state"] == "working"
    run("runs", "cancel", run_id)


def test_a_question_without_anybody_to_ask_ends_with_7_and_is_answered_later(run: Cli) -> None:
    said = run("run", "--agent", "every", "--capability", "test_input_required_result_elicitation", "--json")
    assert said.code == 7, said.out + said.err
    asked = said.document
    assert asked["state"] == "input_required"
    assert asked["questions"][0]["parts"][0]["text"] == "What is your name?"
    assert "answer" in run("runs", "show", asked["id"]).out
    assert run("runs", "answer", asked["id"]).code == 1
    answered = run("runs", "answer", asked["id"], "--data", '{"name": "Ann"}', "--json")
    assert answered.code == 0, answered.out
    ended = run("runs", "watch", asked["id"], "--json").document
    assert ended["state"] == "completed"
    assert ended["parts"][0]["text"] == "Hello, Ann!"


def test_on_a_terminal_questions_are_asked_where_the_run_is_watched(run: Cli) -> None:
    screen, terminal = pty.openpty()
    command = [*COMMAND, "--data-dir", str(run.data_dir), "run", "--agent", "every", "--capability", "order"]
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(run.home), start_new_session=True
    )
    os.close(terminal)
    try:
        shown = _until(screen, "What is it to be?", "Name")
        os.write(screen, b"tea\n")
        shown = _until(screen, "Send this?")
        os.write(screen, b"y\n")
        shown = _until(screen, "Are you sure?", "[y/N]")
        os.write(screen, b"y\n")
        shown = _until(screen, "Send this?")
        os.write(screen, b"y\n")
        shown = _until(screen, "ordered tea")
        assert "completed" in shown
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)


def _until(screen: int, *wanted: str) -> str:
    """Read a terminal until all that is wanted was shown."""
    shown = ""
    while not all(each.lower() in shown.lower() for each in wanted):
        readable, _, _ = select.select([screen], [], [], 30)
        assert readable, shown
        shown += os.read(screen, 65536).decode(errors="replace")
    return shown


# The rest


def test_without_a_hub_a_command_says_so_and_ends_with_3(tmp_path: Path) -> None:
    lonely = cli(tmp_path)
    for arguments in (("agents", "list"), ("find", "x"), ("run", "x"), ("runs", "list"), ("stop",)):
        said = lonely(*arguments)
        assert said.code == 3, arguments
        assert "start one with `interhub serve`" in said.err
    checked = lonely("workflows", "check", _file(lonely, "echo.yaml", ECHO))
    assert checked.code == 0
    assert "No hub is running" in checked.err
    trip = "{id: trip, plan: {workflow: {steps: [{id: a, call: {need: a}, undo: [{id: u, call: {need: b}}]}]}}}"
    checked = lonely("workflows", "check", _file(lonely, "trip.yaml", f"{{kind: workflow, name: t, steps: [{trip}]}}"))
    assert checked.code == 0
    assert "give it an `undo` of its own" in checked.err


def test_a_wrong_command_line_ends_with_2(tmp_path: Path) -> None:
    assert cli(tmp_path)("agents", "ad").code == 2
    assert cli(tmp_path)("connect", "emacs").code == 2


def test_the_key_is_shown_and_exchanged_under_a_running_hub(hub: HubProcess) -> None:
    old = hub.cli("key", "show").out.strip()
    assert hub.get("/api/agents", key=old)[0] == 200
    new = hub.cli("key", "rotate", "--json").document["key"]
    assert hub.get("/api/agents", key=old)[0] == 401
    assert hub.get("/api/agents", key=new)[0] == 200
    assert hub.cli("agents", "list").code == 0


def test_workers_are_listed_without_a_hub(tmp_path: Path) -> None:
    document = cli(tmp_path)("workers", "list", "--json").document
    assert {"langgraph", "crewai"} <= set(document["missing"])
    said = cli(tmp_path)("workers", "sync", "no-such-framework")
    assert said.code == 1
    assert "langgraph" in said.err


def test_connect_shows_asks_writes_and_undoes(tmp_path: Path) -> None:
    run = cli(tmp_path)
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_text('{"mcpServers": {}}\n')
    shown = run("connect", "cursor", "--print")
    assert (shown.code, file.read_text()) == (0, '{"mcpServers": {}}\n')
    assert f'"{run.data_dir}"' in shown.out
    assert "add --yes" in run("connect", "cursor").err
    document = run("connect", "cursor", "--yes", "--json").document
    assert document["changed"]
    assert Path(document["backup"]).read_text() == '{"mcpServers": {}}\n'
    assert "nothing to change" in run("connect", "cursor", "--yes").out
    assert "Cursor is connected" in run("doctor").out
    assert run("connect", "cursor", "--remove", "--yes").code == 0
    assert file.read_text() == '{"mcpServers": {}}\n'
    file.write_text("{ nonsense")
    said = run("connect", "cursor", "--yes")
    assert said.code == 4
    assert f"{file} was left as it is: line 1, column 3" in said.err


def test_doctor_names_what_is_wrong_with_its_remedy(hub: HubProcess, tmp_path: Path) -> None:
    found = {finding["check"]: finding for finding in hub.cli("doctor", "--json").document}
    assert found["hub"]["level"] == "ok"
    assert found["agents.every"]["level"] == "ok"
    lonely = cli(tmp_path)
    lonely.data_dir.write_text("a file")
    said = lonely("doctor", "--json")
    assert said.code == 4
    broken = {finding["check"]: finding for finding in said.document}
    assert broken["data_dir"]["level"] == "error"
    assert "--data-dir" in broken["data_dir"]["remedy"]
    assert broken["hub"]["level"] == "warning"


def test_an_agent_that_dies_is_noted_and_others_go_on(run: Cli) -> None:
    program = run.cwd / "mortal.py"
    program.write_text((ROOT / "examples" / "everything_server.py").read_text())
    assert run("agents", "add", "--name", "mortal", "--", sys.executable, str(program)).code == 0
    program.write_text("import sys; sys.exit('gone for good')\n")
    run("run", "--agent", "mortal", "--capability", "crash")
    said = run("run", "--agent", "mortal", "--capability", "add", "--input", "a=1", "--input", "b=1")
    assert said.code == 1
    deadline = time.monotonic() + 10
    while (health := run("agents", "show", "mortal", "--json").document["health"])["state"] != "failing":
        assert time.monotonic() < deadline, health
    assert health["last_error"]
    assert health["next_try_at"]
    assert "error" in run("agents", "show", "mortal").out
    assert run("run", "--agent", "every", "--capability", "add", "--input", "a=1", "--input", "b=1").out == "2\n"
    run("agents", "remove", "mortal")
