"""The worked examples, as somebody meets them who types the commands of examples/README.md, all on one hub."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub_process import Cli, HubProcess, Said, cli, end, environment, wait_until_ready
from tests.support.processes import ROOT
from tests.support.workers import WORKER_ENVIRONMENTS

README = ROOT / "examples" / "README.md"
CASES = (
    "Customer support",
    "Software change",
    "Data analysis",
    "Incident response",
    "Prior authorisation",
    "Compliance report",
)
LIMIT_S = 60.0


def commands(title: str) -> list[str]:
    """Return the lines of the shell blocks below a heading of the README, up to the next one."""
    sections = re.split(r"^##? (.+)$", README.read_text(), flags=re.MULTILINE)
    below = dict(zip(sections[1::2], sections[2::2], strict=True))[title]
    blocks = re.findall(r"^```sh\n(.*?)^```", below, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Typed(dict[str, Said]):
    """What each command said; one that was typed twice, at last."""

    def of(self, part: str) -> Said:
        """What the one command said that has this in it."""
        (found,) = (said for line, said in self.items() if part in line)
        return found


@dataclass
class Terminal:
    """A terminal in a folder that holds the examples: variables stay, and what is begun with & goes on."""

    command: Cli
    variables: dict[str, str]
    running: ExitStack
    elsewhere: dict[str, str] = field(default_factory=dict[str, str])
    """What stands in the README, and what is there in its place here: addresses, whose ports are not ours to choose."""
    hub: HubProcess = field(init=False)

    def section(self, title: str) -> Typed:
        """Type all commands below a heading, one after the other. Each has to end well."""
        typed = Typed()
        for line in commands(title):
            typed[line] = said = self.type(line)
            assert said.code == 0, f"{line}\n{said.out}{said.err}"
        return typed

    def type(self, line: str, **variables: str) -> Said:
        """Type one command, once what was typed before has had its effect."""
        for there, here in self.elsewhere.items():
            line = line.replace(there, here)
        if line.endswith(" &"):
            return self._begin(line.removesuffix(" &"))
        if hasattr(self, "hub"):
            self._settle()
        kept = self.command.cwd / "variables"
        script = f'set -a\n{line}\ncode=$?\nenv -0 > "{kept}"\nexit $code\n'
        said = self._run(script, {**self.variables, **variables})
        if not variables:
            self.variables = dict(each.split("=", 1) for each in kept.read_text().split("\0") if each)
        return said

    def _run(self, script: str, variables: Mapping[str, str]) -> Said:
        ended = subprocess.run(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.command.cwd,
            env=variables,
            timeout=240,
            check=False,
        )
        return Said(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    def _begin(self, line: str) -> Said:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {line.replace('--port 9100', '--port 0')}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.command.cwd,
            env=self.variables,
            start_new_session=True,
        )
        self.running.callback(end, process)
        if line.startswith("interhub serve"):
            url = wait_until_ready(self.command, process)
            key = (self.command.data_dir / "api.key").read_text().strip()
            self.hub = HubProcess(url=url, key=key, pid=process.pid, process=process, cli=self.command)
            self.elsewhere["http://127.0.0.1:7337"] = url
            return Said(code=0, out=url, err="")
        assert process.stdout is not None
        first = process.stdout.readline()
        self.elsewhere["http://127.0.0.1:9100"] = json.loads(first)["url"]
        self.elsewhere["$!"] = str(process.pid)
        return Said(code=0, out=first, err="")

    def ask(self, path: str) -> Any:
        """Return what the hub's REST interface answers."""
        status, body, _ = self.hub.get(path)
        assert status == 200, body
        return json.loads(body)

    def until(self, holds: Callable[[], Any]) -> Any:
        """Return what holds, once it does: people take their time between two commands."""
        deadline = time.monotonic() + LIMIT_S
        while not (found := holds()):
            assert time.monotonic() < deadline, self.ask("/api/runs")
            time.sleep(0.05)
        return found

    def _settle(self) -> None:
        """Wait until each trigger has acted, and each run has ended, asks, or waits for an event."""

        def settled() -> bool:
            acted = all(one["last"] is None or one["last"]["state"] != "open" for one in self._of("triggers"))
            return acted and all(self._rests(run) for run in self._of("runs"))

        self.until(settled)

    def _of(self, kind: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.ask(f"/api/{kind}")[kind]
        return listed

    def _rests(self, run: dict[str, Any]) -> bool:
        if run["ended_at"] or run["state"] == "input_required":
            return True
        steps = self.ask(f"/api/runs/{run['id']}")["steps"]
        return any(step["path"] == "mended" and step["state"] == "working" for step in steps)

    def runs(self, agent: str) -> list[dict[str, Any]]:
        """Return the runs of an agent with their steps, the oldest first."""
        return [self.ask(f"/api/runs/{run['id']}") for run in self._of("runs") if run["agent_id"] == agent][::-1]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Generator[Terminal]:
    folder, python = tmp_path_factory.mktemp("examples"), Path(sys.executable)
    (folder / "examples").symlink_to(ROOT / "examples")
    variables = environment(
        folder,
        {
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "INTERHUB_SERVER__PORT": "0",
            "INTERHUB_WORKERS__ENVIRONMENTS": str(WORKER_ENVIRONMENTS),
            "UV_CACHE_DIR": subprocess.check_output([python.parent / "uv", "cache", "dir"], text=True).strip(),
            "CREWAI_DISABLE_TELEMETRY": "true",
            "LANGSMITH_TRACING": "false",
            "OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": "false",
        },
    )
    home = cli(folder)
    with ExitStack() as running:
        typing = Terminal(Cli(folder / ".interhub" / "examples", home.home, home.cwd, {}), variables, running)
        typing.section("Examples")
        yield typing
        assert "has stopped" in typing.section("When you are done").of("stop").out
        assert typing.hub.process.wait(20) == 0


def steps_of(run: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {step["path"]: (step["agent_id"], step["state"]) for step in run["steps"]}


def test_every_example_has_its_commands_which_are_typed_here() -> None:
    folders = {path.parent.name for path in README.parent.glob("*/*.yaml")} - {"demo"}
    assert folders == {title.lower().replace(" ", "_") for title in CASES}
    headings = re.findall(r"^## (.+)$", README.read_text(), flags=re.MULTILINE)
    assert headings == [*CASES, "When you are done"]
    for title in CASES:
        name = title.lower().replace(" ", "_")
        files = [path for path in (README.parent / name).glob("*") if path.suffix in (".py", ".yaml")]
        text = "\n".join(commands(title))
        assert [path.name for path in files if f"examples/{name}/{path.name}" not in text] == []


def test_customer_support_answers_turns_to_the_fallback_and_escalates(terminal: Terminal) -> None:
    typed = terminal.section("Customer support")
    assert typed.of("check").out.endswith("support.yaml: no mistakes.\n")
    assert "Reset password" in typed.of("password").out
    fallback = typed.of("The page is blue")
    assert "Thank you for writing" in fallback.out
    assert "reply.answer (handbook) completed" in fallback.err
    assert "The customer writes: I want a refund. What do we answer?" in typed.of("approvals list").out
    assert typed.of("runs watch").out == "It is on its way.\n"


def test_a_software_change_goes_round_until_the_review_accepts(terminal: Terminal) -> None:
    said = terminal.section("Software change").of("interhub run ")
    answer = json.loads(said.out)
    assert (answer["turns"], answer["problems"]) == (2, [])
    assert "if not values" in answer["source"]
    run = terminal.ask(f"/api/runs/{said.err.split()[1]}")
    assert [path for path in steps_of(run) if path.endswith("review")] == ["change.1.review", "change.2.review"]


def test_a_data_analysis_survives_a_bad_region_and_says_so(terminal: Terminal) -> None:
    said = terminal.section("Data analysis").of("interhub run ")
    answer = json.loads(said.out)
    assert answer["ranking"] == ["east", "north", "south"]
    assert answer["total"] == 900.5
    assert list(answer["missing"]) == ["west"]
    assert "could not convert string to float: 'n/a'" in answer["missing"]["west"]
    assert "each.3.one (analyst) failed" in said.err


def test_an_incident_begins_by_a_signed_webhook_and_is_undone_where_it_gets_worse(terminal: Terminal) -> None:
    typed = terminal.section("Incident response")
    alert = next(line for line in typed if "INC-1 checkout" in line)
    assert typed[alert].out.startswith("202 ")
    assert "Woke: " in typed.of('"mended"').out
    mended, worse = terminal.runs("incident")
    assert (mended["state"], worse["state"]) == ("completed", "failed")
    assert "INC-1: connection pool exhausted, error rate 0.31" in json.dumps(mended["parts"])
    assert steps_of(mended)["divert"] == steps_of(mended)["back"] == ("oncall", "completed")
    gone = steps_of(worse)
    assert gone["divert.undo.restore"] == gone["on_failure.page"] == ("oncall", "completed")
    assert gone["back"] == ("oncall", "canceled")
    assert mended["id"] in typed.of("triggers list").out
    state = json.loads(typed.of("state").out)
    assert state["diverted"] == []
    (told,) = state["told"]
    assert told.startswith("INC-2: search is not mended")

    again = terminal.type(alert)
    assert (again.code, '"new":false' in again.out.replace(" ", "")) == (0, True)
    forged = terminal.type(alert.replace("INC-1", "INC-3"), ALERT_WEBHOOK_SECRET="whsec_Zm9yZ2Vk")
    assert (forged.code, forged.out[:3], "WEBHOOK_REFUSED" in forged.out) == (1, "401", True)
    assert len(terminal.runs("incident")) == 2


def test_prior_authorisation_is_asked_of_the_clinician_and_by_the_policy(terminal: Terminal) -> None:
    typed = terminal.section("Prior authorisation")
    assert "Is MRI for P-17 at 850 necessary? (within the usual cost)" in typed.of("approvals list").out
    shown = typed.of("runs show").out
    assert "May payer do authorise? it commits the payer to the cost" in shown
    exactly = {"patient": "P-17", "treatment": "MRI", "cost": 850}
    assert json.loads(shown[shown.index("{") : shown.rindex("}") + 1])["arguments"] == exactly
    assert json.loads(typed.of("runs watch").out) == {"number": "PA-0001", "clinician": "default/local"}

    run_id = terminal.variables["RUN"]
    asked = [one for one in terminal.ask("/api/approvals?state=any")["approvals"] if one["run_id"] == run_id]
    policy, clinician = asked  # the newest first
    assert (policy["capability"], clinician["agent_id"]) == ("authorise", "prior-authorisation")
    database = terminal.command.data_dir / "interhub.db"
    terminal.until(lambda: ("call", "completed", "") in audited(database))
    written = audited(database)
    for one in (clinician, policy):
        assert ("question_ask", "input_required", one["digest"]) in written
        assert ("answer", "accepted", one["digest"]) in written

    inputs = "--input patient=P-17 --input treatment=MRI --input cost=9000"
    waits = terminal.type(f"interhub run --agent payer --capability authorise {inputs}")
    assert waits.code == 7, waits.out + waits.err
    assert '"cost": 9000' in waits.out
    assert terminal.type(f"interhub runs answer {waits.err.split()[1]} no").code == 0
    known = terminal.type("interhub run --agent payer --capability authorised")
    assert [one["number"] for one in json.loads(known.out)] == ["PA-0001"]
    workflow = "interhub run --workflow examples/prior_authorisation/authorisation.yaml"
    refused = terminal.type(f"{workflow} --input patient=P-17 --input treatment=leeches --input cost=5")
    assert (refused.code, "covered: True was expected" in refused.out) == (1, True)


def audited(database: Path) -> list[tuple[str, str, str]]:
    """Return what was done about the payer, with its outcome and, of questions and answers, the digest."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT action, outcome, detail, target FROM audit").fetchall()
    return [
        (action, outcome, json.loads(detail).get("digest", ""))
        for action, outcome, detail, target in rows
        if action != "call" or target == "payer/authorise"
    ]


def test_a_compliance_report_is_made_by_agents_of_four_kinds(terminal: Terminal) -> None:
    typed = terminal.section("Compliance report")
    report = json.loads(typed.of("interhub run ").out.partition("\nartifact ")[0])
    assert re.match(r"20\d\d-\d\d-\d\dT", report["as_of"])
    assert [one["standard"] for one in report["standards"]] == ["SOC 2", "ISO 27001"]
    for one in report["standards"]:
        assert one["report"].startswith(f"Brief: Notes on Handling of customer data under {one['standard']}")
        assert one["verdict"] == f"{one['claims']} of {one['claims']} claims need a source"
    (run,) = terminal.runs("compliance")
    did = steps_of(run)
    assert did["today"] == ("clock", "completed")
    for item in (0, 1):
        for step, agent in (("evidence", "notes"), ("write", "writers"), ("check", "fact-checker")):
            assert did[f"standards.{item}.{step}"] == (agent, "completed")
    adapters = {one["id"]: one["adapter"] for one in terminal.ask("/api/agents")["agents"]}
    wanted = {"notes": "worker", "writers": "worker", "fact-checker": "a2a", "clock": "mcp", "compliance": "team"}
    assert {name: adapters[name] for name in wanted} == wanted
