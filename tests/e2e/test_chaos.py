"""A short form of `make chaos`: runs of sixty calls survive kills of their hub, a frozen replica, and a restart of the
server, and nothing that was recorded is done again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import database
from tests.chaos.cluster import disturb
from tests.chaos.kills import kill_often
from tests.chaos.plan import LEAVES
from tests.support.postgres import PostgresServer, postgres_server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_a_run_survives_its_hub_being_killed_at_random(where: str, server: PostgresServer, tmp_path: Path) -> None:
    url = database(server, "kills") if where == "postgres" else ""
    kills, verdict = kill_often(tmp_path, seed=7, kills=2, url=url)
    assert kills == 2
    assert verdict.problems == []
    assert verdict.leaves == LEAVES


def test_replicas_carry_on_when_one_is_killed_and_the_server_restarts(server: PostgresServer, tmp_path: Path) -> None:
    url = database(server, "replicas")
    tally = disturb(
        tmp_path, server, url, seed=7, runs=1, rounds=2, every_s=(1.0, 2.0), deeds=("kill", "restart"), lease_s=2.0
    )
    assert (tally.kills, tally.restarts) == (1, 1)
    assert tally.verdict.problems == []
    assert tally.verdict.leaves == 2 * LEAVES
    assert max(tally.take_overs_s, default=0.0) <= 10.0
