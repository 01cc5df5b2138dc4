"""Two hubs on one PostgreSQL: what is begun, asked, cancelled or changed at one is known at the other, and survives."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import postgres_server
from tests.support.processes import Peer, peer
from tests.support.replicas import Hub, Refused, hubs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

AGENT = Path(__file__).resolve().parents[1] / "support" / "agents" / "lasting_agent.py"
TAKE_OVER_S = 10.0
QUICK = {"INTERHUB_REPLICAS__LEASE_S": "2", "INTERHUB_REPLICAS__HEARTBEAT_S": "0.3"}
"""Leases shorter than by default, for tests that wait for their end."""


@dataclass(frozen=True)
class Site:
    """Replicas and the agent that they share."""

    hubs: list[Hub]
    agent: Peer

    def notes(self, event: str, run_id: str = "") -> list[dict[str, Any]]:
        """What the agent noted, of a run's calls."""
        found = [note for note in self.agent.executions() if note["event"] == event]
        return [note for note in found if str(note.get("key", "")).startswith(run_id)]

    def begin(self, hub: Hub, *steps: str, key: str = "") -> str:
        """Begin a run of calls one after the other at a hub."""
        shaped = [
            {"id": f"s{number}", "call": {"agent": "lasting", "message": said}} for number, said in enumerate(steps)
        ]
        body = {"goal": "go", "workflow": {"name": "calls", "steps": shaped}, "idempotency_key": key}
        return str(hub.client.ask("POST", "/api/runs", body)["id"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("replicas")
    with (
        postgres_server() as server,
        peer(sys.executable, AGENT, log=folder / "agent.log") as agent,
        hubs(folder, server.url, 2, QUICK) as replicas,
    ):
        replicas[0].client.ask("POST", "/api/agents", {"kind": "url", "url": agent.url, "id": "lasting"}, timeout_s=60)
        yield Site(replicas, agent)


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def kinds(hub: Hub, run_id: str) -> list[str]:
    return [event["kind"] for event in hub.client.ask("GET", f"/api/runs/{run_id}/events")["events"]]


def test_a_run_begun_at_one_is_watched_at_the_other_while_it_goes_on(site: Site) -> None:
    one, other = site.hubs
    run_id = site.begin(one, "work 300", "work 300")
    seen: list[str] = []
    at_first: list[str] = []
    for event in other.client.events(run_id):
        seen.append(event["kind"])
        if event["kind"] == "step_completed" and not at_first:
            at_first = [note["key"] for note in site.notes("effect", run_id)]
    assert seen[0] == "run_submitted"
    assert seen[-1] == "run_completed"
    assert at_first == [f"{run_id}/s0"], "it was told of the first step before the second had ended"


def test_a_question_is_answered_at_the_other(site: Site) -> None:
    one, other = site.hubs
    run_id = site.begin(one, "ask", "work 1")
    asked = other.client.ask("GET", f"/api/runs/{run_id}?wait_s=15", timeout_s=20)
    assert asked["state"] == "input_required"
    body = {"text": "yes", "question_id": asked["questions"][0]["id"], "wait_s": 15}
    ended = other.client.ask("POST", f"/api/runs/{run_id}/answer", body, timeout_s=20)
    assert ended["state"] == "completed"
    assert one.client.ask("GET", f"/api/runs/{run_id}")["state"] == "completed"


def test_a_run_is_cancelled_at_the_other_down_to_the_agent(site: Site) -> None:
    one, other = site.hubs
    run_id = site.begin(one, "work 60000")
    until(lambda: bool(site.notes("sent", run_id)))
    (sent,) = site.notes("sent", run_id)
    began = time.monotonic()
    canceled = other.client.ask("POST", f"/api/runs/{run_id}/cancel", {}, timeout_s=10)
    assert canceled["state"] == "canceled"
    assert time.monotonic() - began < 5
    until(lambda: sent["task"] in [note["task"] for note in site.notes("canceled")])
    assert kinds(one, run_id)[-2:] == ["step_canceled", "run_canceled"]


def test_the_same_assignment_given_to_both_is_one_run(site: Site) -> None:
    one, other = site.hubs
    first, second = site.begin(one, "work 200", key="once"), site.begin(other, "work 200", key="once")
    assert first == second
    assert other.client.ask("GET", f"/api/runs/{first}?wait_s=15", timeout_s=20)["state"] == "completed"
    assert len(site.notes("sent", first)) == 1


def test_an_agent_added_at_one_is_found_at_the_other_and_gone_when_it_is_removed(site: Site, tmp_path: Path) -> None:
    one, other = site.hubs
    with peer(sys.executable, AGENT, log=tmp_path / "log") as second:
        one.client.ask("POST", "/api/agents", {"kind": "url", "url": second.url, "id": "newcomer"}, timeout_s=60)

        def found() -> set[str]:
            matches = other.client.ask("GET", "/api/find?need=carry+out+the+work&limit=20")["matches"]
            return {match["agent_id"] for match in matches}

        until(lambda: "newcomer" in found())
        other.client.ask("DELETE", "/api/agents/newcomer")
        with pytest.raises(Refused) as refused:
            one.client.ask("GET", "/api/agents/newcomer")
        assert refused.value.status == 404


def test_what_one_sealed_the_other_opens(site: Site) -> None:
    one, other = site.hubs
    path = "/api/agents/lasting/call"
    call = {"capability": "work", "message": {"parts": [{"text": "ask"}]}}
    asked = one.client.ask("POST", path, call, timeout_s=20)
    assert asked["outcome"] == "input_required"
    answer = {**call, "resume": {"state": asked["state"], "text": "yes"}}
    assert other.client.ask("POST", path, answer, timeout_s=20)["outcome"] == "completed"


def test_a_killed_hubs_runs_go_on_at_the_other(site: Site) -> None:
    one, other = site.hubs
    run_id = site.begin(one, "work 1", "work 2500", "work 1")
    until(lambda: len(site.notes("sent", run_id)) == 2)
    until(lambda: kinds(other, run_id).count("step_bound") == 2)
    one.kill()
    killed = time.monotonic()
    try:
        until(lambda: len(site.notes("sent", run_id)) == 3, TAKE_OVER_S)
        ended = other.client.ask("GET", f"/api/runs/{run_id}?wait_s=10", timeout_s=20)
        assert ended["state"] == "completed"
        assert time.monotonic() - killed < TAKE_OVER_S
        assert [note["key"] for note in site.notes("sent", run_id)] == [f"{run_id}/s{n}" for n in range(3)], (
            "a task that the agent has is asked for, not sent again"
        )
    finally:
        one.start()


def test_a_hub_that_was_frozen_too_long_ends_itself(site: Site) -> None:
    one, other = site.hubs
    run_id = site.begin(one, "work 500", "work 1")
    until(lambda: bool(site.notes("sent", run_id)))
    one.freeze()
    ended = other.client.ask("GET", f"/api/runs/{run_id}?wait_s=15", timeout_s=20)
    assert ended["state"] == "completed", "the other took over"
    one.thaw()
    assert one.ended(10) == 70
    one.start()
    assert len(site.notes("effect", run_id)) == 2


def test_a_hub_that_is_stopped_hands_its_runs_over_at_once(site: Site) -> None:
    one, other = site.hubs
    run_id = site.begin(one, "work 1", "work 30000")
    until(lambda: len(site.notes("sent", run_id)) == 2)
    one.stop()
    began = time.monotonic()
    try:
        until(lambda: len(site.notes("sent", run_id)) == 3, 5.0)
        assert time.monotonic() - began < 5
        other.client.ask("POST", f"/api/runs/{run_id}/cancel", {})
    finally:
        one.start()


def test_a_hub_says_who_its_replicas_are(site: Site) -> None:
    one, other = site.hubs
    until(lambda: len(one.client.ask("GET", "/readyz")["replicas"]) == 2)
    shown = json.dumps(other.client.ask("GET", "/readyz"))
    replicas = json.loads(shown)["replicas"]
    assert [replica["self"] for replica in replicas].count(True) == 1
    assert "http" not in shown, "anybody may ask, and need not know where the others are"
