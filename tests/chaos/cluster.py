"""Three hubs behind a balancer, one of which is killed or frozen every few seconds; and their server restarts."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.chaos.site import Snapshot, Verdict, answer, begin, judge, lasting, postgres, register
from tests.support.postgres import PostgresServer
from tests.support.replicas import Balancer, Client, Hub, NotServed, Refused, hubs

ENDS_WITHIN_S = 120.0
LEASE_LOST = 70


@dataclass
class Tally:
    """What was done to the replicas."""

    kills: int = 0
    freezes: int = 0
    restarts: int = 0
    """Of the server."""
    self_exits: int = 0
    take_overs_s: list[float] = field(default_factory=list[float])
    """From a kill until another replica executes what the killed one had."""
    seconds: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)


def disturb(
    folder: Path,
    server: PostgresServer,
    url: str,
    *,
    seed: int,
    runs: int,
    rounds: int,
    every_s: tuple[float, float] = (2.0, 4.0),
    deeds: tuple[str, ...] = ("kill", "kill", "freeze", "restart"),
    lease_s: float = 5.0,
) -> Tally:
    """Carry out runs while something happens to a replica, or to the server, every few seconds.

    `runs` begin at once, and as many again whenever something happens, but the last time.
    """
    rng = random.Random(seed)
    tally = Tally()
    with lasting(folder) as agent, hubs(folder, url, 3, _settings(lease_s)) as replicas, Balancer(replicas) as balancer:
        register(replicas[0].client, agent)
        client = balancer.client
        began = time.monotonic()
        ids: list[str] = []
        all_begun, over = threading.Event(), threading.Event()
        answering = threading.Thread(target=_answer_all, args=(client, ids, all_begun, over), daemon=True)
        answering.start()
        try:
            taken: list[Snapshot] = []
            for turn in range(rounds):
                ids += [begin(client, seed * 1000 + turn * 10 + n, f"chaos-{seed}-{turn}-{n}") for n in range(runs)]
                time.sleep(rng.uniform(*every_s))
                deed = deeds[turn % len(deeds)]
                victim = rng.choice(replicas)
                if deed == "kill":
                    _kill(victim, url, tally, taken)
                elif deed == "freeze":
                    _freeze(victim, rng, tally)
                else:
                    tally.restarts += 1
                    server.stop()
                    time.sleep(rng.uniform(0.2, 1.0))
                    server.start()
            all_begun.set()
            over.wait(ENDS_WITHIN_S)
        finally:
            over.set()
            answering.join(30)
        tally.seconds = time.monotonic() - began
        tally.verdict = judge(client, ids, agent, postgres(url), taken)
    return tally


def _settings(lease_s: float) -> dict[str, str]:
    beat_s = min(1.0, lease_s / 5)
    return {"INTERHUB_REPLICAS__LEASE_S": f"{lease_s:g}", "INTERHUB_REPLICAS__HEARTBEAT_S": f"{beat_s:g}"}


def _kill(victim: Hub, url: str, tally: Tally, taken: list[Snapshot]) -> None:
    """Kill a replica, see how long others take to have its work, and put another in its place."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT executor_id FROM replicas WHERE url = %s", (victim.url,)).fetchone()
        victim.kill()
        killed = time.monotonic()
        tally.kills += 1
        if found is not None:
            executor = str(found[0])
            query = "SELECT workflow_uuid FROM dbos.workflow_status WHERE status = 'PENDING' AND executor_id = %s"
            orphans = [str(row[0]) for row in connection.execute(query, (executor,))]
            snapshot = postgres(url).snapshot()
            mine = tuple(f"{orphan.partition('.')[0]}/" for orphan in orphans)
            taken.append(
                Snapshot(
                    snapshot.at,
                    snapshot.recorded,
                    frozenset(key for key in snapshot.bound if key.startswith(mine)) if mine else frozenset(),
                )
            )
            victim.begin()
            if orphans:
                _until(lambda: not _waits(connection, orphans, executor), 30.0)
                tally.take_overs_s.append(time.monotonic() - killed)
        else:
            victim.begin()
    victim.ready()


def _waits(connection: psycopg.Connection, orphans: list[str], executor: str) -> bool:
    """Whether any of a dead replica's runs is still with it, or taken by nobody."""
    query = (
        "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = ANY(%s) "
        "AND (status = 'ENQUEUED' OR (status = 'PENDING' AND executor_id = %s))"
    )
    row = connection.execute(query, (orphans, executor)).fetchone()
    return row is not None and row[0] > 0


def _freeze(victim: Hub, rng: random.Random, tally: Tally) -> None:
    victim.freeze()
    tally.freezes += 1
    time.sleep(rng.uniform(7.0, 9.0))
    victim.thaw()
    code = victim.ended(10.0)
    if code == LEASE_LOST:
        tally.self_exits += 1
    if code is not None:
        victim.start()


def _answer_all(client: Client, ids: list[str], all_begun: threading.Event, over: threading.Event) -> None:
    """Be the person whom runs ask, until all have ended; `ids` grows meanwhile."""
    ended: set[str] = set()
    while not over.is_set() and not (all_begun.is_set() and len(ended) == len(ids)):
        for run_id in [one for one in ids if one not in ended]:
            try:
                run = client.ask("GET", f"/api/runs/{run_id}")
                if run["ended_at"] is not None:
                    ended.add(run_id)
                elif run["state"] == "input_required":
                    answer(client, run)
            except (NotServed, Refused):
                continue
        time.sleep(0.1)
    over.set()


def _until(true: Callable[[], bool], within_s: float) -> None:
    patience = time.monotonic() + within_s
    while not true() and time.monotonic() < patience:
        time.sleep(0.05)
