"""What chaos happens to, and what must be true of it afterwards."""

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.plan import LEAVES, TEAMS, chaos_plan
from tests.support.processes import Peer, peer
from tests.support.replicas import Client

AGENT = Path(__file__).resolve().parents[1] / "support" / "agents" / "lasting_agent.py"


@contextmanager
def lasting(folder: Path) -> Generator[Peer]:
    """Run the agent that outlives all hubs."""
    folder.mkdir(parents=True, exist_ok=True)
    with peer(sys.executable, AGENT, log=folder / "agent.jsonl") as agent:
        yield agent


def register(client: Client, agent: Peer) -> None:
    """Have a hub know the agent and the teams."""
    client.ask("POST", "/api/agents", {"kind": "url", "url": agent.url, "id": "lasting"}, timeout_s=60)
    for document in TEAMS:
        client.ask("POST", "/api/agents", {"kind": "document", "document": document}, timeout_s=60)


def begin(client: Client, seed: int, key: str) -> str:
    """Begin a run of the plan; the same key again is the same run."""
    body = {"goal": "go", "workflow": chaos_plan(seed), "idempotency_key": key}
    return str(client.insist("POST", "/api/runs", body)["id"])


def answer(client: Client, run: dict[str, Any]) -> None:
    """Answer what a run asks; somebody else may have been first."""
    for question in run["questions"]:
        body = {"text": "yes", "question_id": question["id"]}
        client.ask("POST", f"/api/runs/{run['id']}/answer", body)


@dataclass(frozen=True)
class Snapshot:
    """What was on record at a moment."""

    at: float
    recorded: frozenset[str]
    """Keys of the calls whose results the engine has."""
    bound: frozenset[str]
    """Keys of the calls whose tasks at the agent are known."""


@dataclass
class Database:
    """The hub's tables and the engine's, wherever they are."""

    rows: Callable[[str, str], list[tuple[Any, ...]]]
    """Asks the engine's (`engine`) or the hub's (`hub`) tables; tables of the engine are written `dbos.name`."""

    def snapshot(self) -> Snapshot:
        """Return what is on record now. Ask when nobody writes: what comes later may be done after all."""
        at = time.time()
        found = self.rows("hub", "SELECT key FROM delegations WHERE remote_task <> '' AND state = 'bound'")
        bound = frozenset(str(key) for (key,) in found)
        recorded: set[str] = set()
        for workflow, name in self.rows("engine", "SELECT workflow_uuid, function_name FROM dbos.operation_outputs"):
            path, mark, number = str(name).partition("#")
            if not mark:
                continue
            root, _, outer = str(workflow).partition(".")
            step = f"{outer}.{path}" if outer else path
            recorded.add(f"{root}/{step}" + (f"#{number}" if number != "0" else ""))
        return Snapshot(at, frozenset(recorded), bound)


def sqlite(data_dir: Path) -> Database:
    """The two files of a data directory."""

    def rows(which: str, query: str) -> list[tuple[Any, ...]]:
        file = data_dir / ("engine.db" if which == "engine" else "interhub.db")
        connection = sqlite3.connect(file, timeout=10)
        try:
            return connection.execute(query.replace("dbos.", "")).fetchall()
        finally:
            connection.close()

    return Database(rows)


def postgres(url: str) -> Database:
    """A database on a server."""

    def rows(which: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(query.encode()).fetchall()

    return Database(rows)


@dataclass
class Verdict:
    """What was found after all runs had ended."""

    runs: int = 0
    leaves: int = 0
    sent_again: int = 0
    """Calls that were sent twice: before the agent's task was on record."""
    problems: list[str] = field(default_factory=list[str])


def judge(client: Client, run_ids: list[str], agent: Peer, database: Database, taken: list[Snapshot]) -> Verdict:
    """Say what became of runs, and whether anything was done that must not be."""
    verdict = Verdict(runs=len(run_ids))
    notes = agent.executions()
    sent = Counter(str(note["key"]) for note in notes if note["event"] == "sent")
    effects = Counter(str(note["key"]) for note in notes if note["event"] == "effect")
    verdict.sent_again = sum(count - 1 for count in sent.values())
    for key, count in effects.items():
        if count != 1:
            verdict.problems.append(f"{key} had its effect {count} times")
    for snapshot in taken:
        later = {str(note["key"]) for note in notes if note["event"] == "sent" and float(str(note["at"])) > snapshot.at}
        verdict.problems += [f"{key} was recorded and was sent again" for key in later & snapshot.recorded]
        verdict.problems += [f"{key} was bound and was sent again" for key in later & snapshot.bound]
    missing = set(effects) - database.snapshot().recorded
    if missing:  # then what is looked for above would not be found
        verdict.problems.append(f"no record is found of {sorted(missing)[:3]}")
    for run_id in run_ids:
        run = client.insist("GET", f"/api/runs/{run_id}")
        if run["state"] != "completed":
            verdict.problems.append(f"run {run_id} is {run['state']}: {run.get('error')}")
        keys = {key for key in sent if key.startswith(run_id)}
        verdict.leaves += len(keys)
        if len(keys) != LEAVES:
            verdict.problems.append(f"run {run_id} made {len(keys)} calls, not {LEAVES}")
        query = f"SELECT seq, step, attempt, kind, n FROM events WHERE run_id = '{run_id}' ORDER BY seq"
        events = database.rows("hub", query)
        if [event[0] for event in events] != list(range(1, len(events) + 1)):
            verdict.problems.append(f"the journal of {run_id} has gaps")
        if max(Counter(event[1:] for event in events).values(), default=0) != 1:
            verdict.problems.append(f"the journal of {run_id} tells something twice")
        ends = Counter(event[1] for event in events if event[3] == "step_completed")
        if set(ends.values()) - {1}:
            verdict.problems.append(f"steps of {run_id} ended twice: {[step for step in ends if ends[step] > 1]}")
    return verdict
