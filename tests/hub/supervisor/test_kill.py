"""`kill -9` at chosen moments, a restart each time: the run ends well, and nothing that was recorded is done again."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """When to kill: after the first line of the process that this is true of."""

    name: str
    matches: Callable[[Line], bool]


def started(step: str) -> Callable[[Line], bool]:
    return lambda line: line["kind"] == "start" and str(line["key"]).partition("/")[2] == step


def done(step: str) -> Callable[[Line], bool]:
    return lambda line: line["kind"] == "done" and str(line["key"]).partition("/")[2] == step


MOMENTS = (
    Moment("after the first step's work", done("s1")),
    Moment("within a parallel branch", started("fan.f4")),
    Moment("within a plan in a plan", done("fan.f8.i1")),
    Moment("when an agent has taken the task", lambda line: line["kind"] == "bound"),
    Moment("deep in nested teams", done("teams.t1.c2.p1")),
    Moment("when a person is asked", lambda line: line["kind"] == "asked"),
    Moment("after the answer was given", lambda line: line["kind"] == "answered"),
    Moment("near the end", started("e2")),
)


def run_until(directory: Path, moment: Moment | None, *, answers: bool) -> list[Line]:
    """Start the program, kill it at the moment, and return what it said; without a moment, wait for its end."""
    program = [sys.executable, "-m", "tests.support.killed_hub", str(directory), *(["--answer"] if answers else [])]
    lines: list[Line] = []
    with (directory / "errors.txt").open("ab") as errors:
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        try:
            assert process.stdout is not None
            for raw in process.stdout:
                if not raw.startswith("{"):
                    continue  # the hub's own log
                lines.append(json.loads(raw))
                if moment is not None and moment.matches(lines[-1]):
                    break
        finally:
            if moment is not None:
                os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=30)
    said = (directory / "errors.txt").read_text()[-3000:]
    if moment is None:
        assert process.returncode == 0, said
    else:
        assert lines, said
        assert moment.matches(lines[-1]), f"it ended before {moment.name}: {lines[-1]} {said}"
    return lines


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path, timeout=10)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def recorded_calls(directory: Path) -> set[str]:
    """The idempotency keys of the calls that the engine has recorded."""
    keys: set[str] = set()
    query = "SELECT workflow_uuid, function_name FROM operation_outputs WHERE function_name LIKE '%#%'"
    for workflow, name in rows(directory / "engine.db", query):
        root, _, outer = str(workflow).partition(".")
        path, _, number = str(name).partition("#")
        step = f"{outer}.{path}" if outer else path
        keys.add(f"{root}/{step}" + (f"#{number}" if number != "0" else ""))
    return keys


def test_a_run_survives_being_killed_at_every_kind_of_moment(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    kills: list[tuple[int, set[str]]] = []
    for moment in MOMENTS:
        answers = any(known.name == "when a person is asked" for known in MOMENTS[: MOMENTS.index(moment)])
        run_until(tmp_path, moment, answers=answers)
        kills.append((len(log.read_text().splitlines()), recorded_calls(tmp_path)))
    ended = run_until(tmp_path, None, answers=True)[-1]

    assert (ended["kind"], ended["state"]) == ("ended", "completed")
    lines: list[Line] = [json.loads(line) for line in log.read_text().splitlines()]
    for length, recorded in kills:
        again = [line["key"] for line in lines[length:] if line["kind"] == "start" and line["key"] in recorded]
        assert again == [], "a call that was recorded before the kill was made again after it"
    finished = recorded_calls(tmp_path)
    worked = Counter(str(line["key"]) for line in lines if line["kind"] in ("done", "reattached"))
    children = {f"{ended['run']}/{step}" for step in ("teams.t1", "teams.t2", "teams.t1.c2")}
    assert set(worked) == finished - children
    assert len(worked) == 22
    # Work is done twice only where a kill came between its end and its record.
    assert sum(count - 1 for count in worked.values()) <= 2 * len(MOMENTS)
    assert [line["task"] for line in lines if line["kind"] == "reattached"] == ["task-of-keeper"]

    # The program ends with the final event; the engine may then not have noted the end of the run itself.
    states = rows(tmp_path / "engine.db", "SELECT workflow_uuid FROM workflow_status WHERE status != 'SUCCESS'")
    assert {workflow for (workflow,) in states} <= {ended["run"]}
    events = rows(tmp_path / "interhub.db", "SELECT seq, step, attempt, kind, n FROM events ORDER BY seq")
    assert [event[0] for event in events] == list(range(1, len(events) + 1))
    assert max(Counter(event[1:] for event in events).values()) == 1
    kinds = Counter(event[3] for event in events)
    assert events[-1][3] == "run_completed"
    assert kinds["run_completed"] == kinds["question_asked"] == kinds["question_answered"] == 1
    ends = Counter(event[1] for event in events if event[3] == "step_completed")
    assert set(ends.values()) == {1}
    assert len(ends) == 25, "21 calls, a plan in the plan, and three teams"
