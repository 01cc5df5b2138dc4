"""`make chaos`: the long runs, their figures as a table. It ends with 1 when anything was not as promised.

python -m tests.chaos [--seeds 5] [--kills 10] [--only sqlite,postgres,cluster]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from tests.chaos.cluster import disturb
from tests.chaos.kills import kill_often
from tests.support.postgres import PostgresServer, postgres_server

TAKE_OVER_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, and say how it went."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--only", default="sqlite,postgres,cluster")
    given = parser.parse_args(arguments)
    seeds = range(given.first, given.first + given.seeds)
    problems: list[str] = []
    only = set(given.only.split(","))
    print("what      seed  kills  freezes  restarts  exits  runs  calls  sent again  slowest take-over  seconds")
    with tempfile.TemporaryDirectory(prefix="interhub-chaos-") as name, postgres_server() as server:
        folder = Path(name)
        for what in ("sqlite", "postgres"):
            if what not in only:
                continue
            for seed in seeds:
                url = database(server, f"kills_{seed}") if what == "postgres" else ""
                began = time.monotonic()
                kills, verdict = kill_often(folder / f"{what}-{seed}", seed=seed, kills=given.kills, url=url)
                row(what, seed, kills, 0, 0, 0, verdict.runs, verdict.leaves, verdict.sent_again, None, began)
                problems += [f"{what} {seed}: {problem}" for problem in verdict.problems]
                if kills < given.kills:
                    problems.append(f"{what} {seed}: it ended after {kills} kills")
        if "cluster" in only:
            for seed in seeds:
                began = time.monotonic()
                url = database(server, f"cluster_{seed}")
                tally = disturb(folder / f"cluster-{seed}", server, url, seed=seed, runs=2, rounds=8)
                slowest = max(tally.take_overs_s, default=None)
                found = tally.verdict
                row(
                    "cluster", seed, tally.kills, tally.freezes, tally.restarts, tally.self_exits,
                    found.runs, found.leaves, found.sent_again, slowest, began,
                )  # fmt: skip
                problems += [f"cluster {seed}: {problem}" for problem in found.problems]
                if slowest is not None and slowest > TAKE_OVER_S:
                    problems.append(f"cluster {seed}: a take-over took {slowest:.1f} s")
    for problem in problems:
        print("NOT AS PROMISED:", problem)
    print("all as promised" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


def database(server: PostgresServer, name: str) -> str:
    """Make a database on the server, and return its URL."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.url.replace("/postgres?", f"/{name}?")


def row(
    what: str,
    seed: int,
    kills: int,
    freezes: int,
    restarts: int,
    exits: int,
    runs: int,
    calls: int,
    again: int,
    slowest: float | None,
    began: float,
) -> None:
    """Print one line of the table."""
    shown = f"{slowest:.1f} s" if slowest is not None else "-"
    print(
        f"{what:<9} {seed:>4}  {kills:>5}  {freezes:>7}  {restarts:>8}  {exits:>5}  {runs:>4}  {calls:>5}  "
        f"{again:>10}  {shown:>17}  {time.monotonic() - began:>7.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
