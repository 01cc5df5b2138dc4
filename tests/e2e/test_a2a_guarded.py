"""A2A agents that want credentials, and such that ask by kagent's extension, behind a whole hub."""

import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT, Peer, peer
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def guarded() -> Generator[Peer]:
    with peer(sys.executable, ROOT / "tests" / "support" / "agents" / "guarded_agent.py") as running:
        yield running


@asynccontextmanager
async def hub_with(
    tmp_path: Path, guarded: Peer, monkeypatch: pytest.MonkeyPatch, name: str, **body: Any
) -> AsyncGenerator[tuple[WholeHub, Any]]:
    monkeypatch.setenv("GUARDED_KEY", "open sesame")
    monkeypatch.setenv("GUARDED_ID", "ann")
    async with whole_hub(tmp_path) as hub:
        asked = {"kind": "url", "id": name, "url": f"{guarded.url}/{name}", **body}
        added = await hub.client.post("/api/agents", json=asked)
        yield hub, added


async def test_credentials_are_named_when_an_agent_is_added_and_used_when_it_is_called(
    tmp_path: Path, guarded: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"sso": "${GUARDED_ID}:${GUARDED_KEY}"}
    async with hub_with(tmp_path, guarded, monkeypatch, "oauth", credentials=login) as (hub, added):
        assert added.status_code == 201, added.text
        assert added.json()["endpoint"]["options"]["credentials"] == login
        assert (await hub.client.post("/api/agents/oauth/refresh")).status_code == 200
        called = await hub.client.post("/api/agents/oauth/call", json={"arguments": {"message": "let me in"}})
        assert called.status_code == 200, called.text
        assert "open sesame" not in (await hub.client.get("/api/agents/oauth")).text


async def test_a_secret_that_is_written_out_is_refused_and_not_repeated(
    tmp_path: Path, guarded: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"key": "hunter2"}
    async with hub_with(tmp_path, guarded, monkeypatch, "header", credentials=given) as (_, added):
        assert added.status_code == 400
        assert "key=${VARIABLE}" in added.text
        assert "hunter2" not in added.text


async def test_approvals_of_kagents_extension_are_answered_in_a_run(
    tmp_path: Path, guarded: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hub_with(tmp_path, guarded, monkeypatch, "approves") as (hub, added):
        assert added.status_code == 201, added.text
        body = {"goal": "clean up", "agent_id": "approves", "wait_s": 10}
        asked = (await hub.client.post("/api/runs", json=body)).json()
        question = asked["questions"][0]
        assert list(question["schema"]["properties"]) == ["delete_file", "restart"]
        decided = {"delete_file": {"approved": True}, "restart": {"approved": False, "reason": "not now"}}
        answer = {"question_id": question["id"], "data": decided, "wait_s": 10}
        answered = await hub.client.post(f"/api/runs/{asked['id']}/answer", json=answer)
        assert answered.status_code == 200, answered.text
        done = answered.json()
        assert done["state"] == "completed"
        took = next(part["data"] for artifact in done["artifacts"] for part in artifact["parts"] if "data" in part)
        assert took["approvals"][1] == {"id": "approval-2", "approved": False, "rejection_reason": "not now"}
