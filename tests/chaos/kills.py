"""One hub, killed again and again in the midst of one run."""

import random
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.site import Snapshot, Verdict, answer, begin, judge, lasting, postgres, register, sqlite
from tests.support.processes import Peer
from tests.support.replicas import Hub, NotServed, Refused, hub

ENDS_WITHIN_S = 90.0


def kill_often(folder: Path, *, seed: int, kills: int, url: str = "") -> tuple[int, Verdict]:
    """Carry out one run under kills, on SQLite or on a PostgreSQL database of its own; returns how often it was."""
    rng = random.Random(seed)
    with lasting(folder) as agent:
        one = hub(folder, url)
        database = postgres(url) if url else sqlite(one.command.data_dir)
        try:
            one.start()
            register(one.client, agent)
            run_id = begin(one.client, seed, f"chaos-{seed}")
            taken: list[Snapshot] = []
            while len(taken) < kills and _goes_on(one, agent, run_id, rng):
                one.kill()
                taken.append(database.snapshot())
                one.start()
            _to_the_end(one, run_id)
            return len(taken), judge(one.client, [run_id], agent, database, taken)
        finally:
            one.stop()
            one.log.close()


def _goes_on(one: Hub, agent: Peer, run_id: str, rng: random.Random) -> bool:
    """Wait until the run has gone on a little, and then a little more; False when it has ended."""
    before = len(agent.executions())
    patience = time.monotonic() + 15.0
    while len(agent.executions()) == before and time.monotonic() < patience:
        run = one.client.ask("GET", f"/api/runs/{run_id}")
        if run["ended_at"] is not None:
            return False
        if run["state"] == "input_required":
            if rng.random() < 0.5:
                return True  # killed while it waits for a person
            _answer(one, run)
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.5))
    return True


def _answer(one: Hub, run: dict[str, object]) -> None:
    with suppress(NotServed, Refused):  # it is asked again
        answer(one.client, run)


def _to_the_end(one: Hub, run_id: str) -> None:
    patience = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < patience:
        run = one.client.ask("GET", f"/api/runs/{run_id}?wait_s=5", timeout_s=20)
        if run["ended_at"] is not None:
            return
        if run["state"] == "input_required":
            _answer(one, run)
