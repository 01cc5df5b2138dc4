"""`kill -9` at chosen moments, a restart each time: the run ends well, and nothing that was recorded is done again."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """When the program kills itself: at the first line of this kind, about this step where one is named."""

    name: str
    kind: str
    step: str = ""


MOMENTS = (
    Moment("after the first step's work", "done", "s1"),
    Moment("within a parallel branch", "start", "fan.f4"),
    Moment("within a plan in a plan", "done", "fan.f8.i1"),
    Moment("when an agent has taken the task", "bound"),
    Moment("deep in nested teams", "done", "teams.t1.c2.p1"),
    Moment("when a person is asked", "asked"),
    Moment("after the answer was given", "answered"),
    Moment("near the end", "start", "e2"),
)


def run_until(directory: Path, moment: Moment | None, *, answers: bool) -> list[Line]:
    """Run the program until it kills itself at the moment, and return what it said; without one, until its end."""
    program = [sys.executable, "-m", "tests.support.killed_hub", str(directory), *(["--answer"] if answers else [])]
    if moment is not None:
        program += ["--kill", moment.kind, moment.step]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    lines = [json.loads(raw) for raw in ended.stdout.splitlines() if raw.startswith("{")]  # beside the hub's own log
    wanted = 0 if moment is None else -signal.SIGKILL
    at = "its end" if moment is None else moment.name
    assert ended.returncode == wanted, f"it was not at {at} that it ended: {lines[-1:]} {ended.stderr[-3000:]}"
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
