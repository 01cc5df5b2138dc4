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
from tests.chaos.site import Verdict
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
    print(
        "what      seed  kills  freezes  restarts  exits  runs  calls  sent again  slowest take-over  seconds  problems"
    )
    with tempfile.TemporaryDirectory(prefix="interhub-chaos-") as name, postgres_server() as server:
        folder = Path(name)
        for what in ("sqlite", "postgres"):
            if what not in only:
                continue
            for seed in seeds:
                url = database(server, f"kills_{seed}") if what == "postgres" else ""
                began = time.monotonic()
                kills, verdict = kill_often(folder / f"{what}-{seed}", seed=seed, kills=given.kills, url=url)
                if kills < given.kills:
                    verdict.problems.append(f"it ended after {kills} kills")
                row(what, seed, (kills, 0, 0, 0), verdict, None, began)
                problems += [f"{what} {seed}: {problem}" for problem in verdict.problems]
        if "cluster" in only:
            for seed in seeds:
                began = time.monotonic()
                url = database(server, f"cluster_{seed}")
                tally = disturb(folder / f"cluster-{seed}", server, url, seed=seed, runs=2, rounds=8)
                slowest = max(tally.take_overs_s, default=None)
                found = tally.verdict
                if slowest is not None and slowest > TAKE_OVER_S:
                    found.problems.append(f"a take-over took {slowest:.1f} s")
                row(
                    "cluster",
                    seed,
                    (tally.kills, tally.freezes, tally.restarts, tally.self_exits),
                    found,
                    slowest,
                    began,
                )
                problems += [f"cluster {seed}: {problem}" for problem in found.problems]
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
    what: str, seed: int, done: tuple[int, int, int, int], found: Verdict, slowest: float | None, began: float
) -> None:
    """Print one line of the table; `done` are kills, freezes, restarts and exits."""
    kills, freezes, restarts, exits = done
    shown = f"{slowest:.1f} s" if slowest is not None else "-"
    print(
        f"{what:<9} {seed:>4}  {kills:>5}  {freezes:>7}  {restarts:>8}  {exits:>5}  {found.runs:>4}  "
        f"{found.leaves:>5}  {found.sent_again:>10}  {shown:>17}  {time.monotonic() - began:>7.1f}  "
        f"{len(found.problems):>8}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
