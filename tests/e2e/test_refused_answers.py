"""Answers that must not count, by each way that a person answers: tampered, foreign, replayed and expired ones."""

import json
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import anyio.to_thread
import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.hub_process import Cli, HubProcess, cli, hub_process
from tests.support.mcp_site import text

pytestmark = pytest.mark.anyio

OTHER_KEY = "the key of somebody else, who runs nothing here"
WAYS = ("REST", "A2A", "MCP 2026-07-28", "MCP legacy", "CLI")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    folder = tmp_path_factory.mktemp("answers")
    hashes = json.dumps([sha256(OTHER_KEY.encode()).hexdigest()])
    with (
        (folder / "log").open("w") as log,
        hub_process(cli(folder, {"INTERHUB_AUTH__KEY_HASHES": hashes}), log=log) as running,
    ):
        yield running


@asynccontextmanager
async def rest(hub: HubProcess, key: str = "") -> AsyncGenerator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {key or hub.key}"}
    async with httpx.AsyncClient(base_url=hub.url, headers=headers, timeout=60) as client:
        yield client


async def asking(hub: HubProcess, **ask: Any) -> dict[str, Any]:
    """Begin a run, and return it once it asks."""
    step = {"id": "a", "ask": {"message": "Which colour?"}, **ask}
    async with rest(hub) as http:
        run = (await http.post("/api/runs", json={"workflow": {"steps": [step]}, "wait_s": 30})).json()
    assert run["state"] == "input_required", run
    return cast("dict[str, Any]", run)


async def say(
    hub: HubProcess, way: str, run: dict[str, Any], said: str, *, key: str = "", tampered: bool = False
) -> str:
    """Answer what a run asks; return why that was refused, or nothing where it was taken.

    What is tampered with is the digest of what was shown, or, where nothing else says what is answered, its name.
    """
    question = run["questions"][0]
    digest = "sha256:" + "0" * 64 if tampered else question["digest"]
    other_id = str(uuid4()) if tampered else question["id"]
    match way:
        case "REST":
            async with rest(hub, key) as http:
                body = {"text": said, "question_id": question["id"], "digest": digest}
                answered = await http.post(f"/api/runs/{run['id']}/answer", json=body)
            return "" if answered.is_success else answered.text
        case "A2A":
            message = {
                "messageId": str(uuid4()),
                "taskId": run["id"],
                "role": "ROLE_USER",
                "parts": [{"text": said}],
                "metadata": {"interhub/digest": digest, "interhub/question": question["id"]},
            }
            body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
            async with rest(hub, key) as http:
                spoken = (await http.post("/a2a", json=body, headers={"A2A-Version": "1.0"})).json()
            return json.dumps(spoken["error"]) if "error" in spoken else ""
        case "CLI":
            command = hub.cli if not key else with_key(hub, key)
            ended = await anyio.to_thread.run_sync(lambda: command("approvals", "answer", other_id, said))
            return "" if ended.code == 0 else ended.err
        case _:
            headers = {"Authorization": f"Bearer {key or hub.key}"}
            async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
                streams = streamable_http_client(f"{hub.url}/mcp", http_client=http)
                async with Client(streams, mode=way.removeprefix("MCP ")) as client:
                    arguments = {"run_id": run["id"], "question_id": other_id, "answer": said}
                    result = await client.call_tool("answer", arguments)
            return text(result) if result.is_error else ""


def with_key(hub: HubProcess, key: str) -> Cli:
    """The command of somebody else, who was told where the hub is."""
    folder = hub.cli.home / "somebody-else"
    folder.mkdir(exist_ok=True)
    shutil.copy(hub.cli.data_dir / "hub.json", folder / "hub.json")
    (folder / "api.key").write_text(key)
    (folder / "api.key").chmod(0o600)
    return Cli(folder, Path(folder), folder, {})


@pytest.mark.parametrize("way", WAYS)
async def test_tampered_foreign_and_replayed_answers_do_not_count(hub: HubProcess, way: str) -> None:
    run = await asking(hub)
    assert await say(hub, way, run, "red", tampered=True)
    foreign = await say(hub, way, run, "red", key=OTHER_KEY)
    assert foreign
    assert "Which colour?" not in foreign
    async with rest(hub) as http:
        assert (await http.get(f"/api/runs/{run['id']}")).json()["state"] == "input_required"
        assert await say(hub, way, run, "blue") == ""
        ended = (await http.get(f"/api/runs/{run['id']}", params={"wait_s": 30})).json()
        assert (ended["state"], ended["parts"]) == ("completed", [{"text": "blue"}])
        assert await say(hub, way, run, "green")
        again = (await http.get(f"/api/runs/{run['id']}")).json()
    assert again["parts"] == ended["parts"]


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_comes_too_late_does_not_count(hub: HubProcess, way: str) -> None:
    run = await asking(hub, timeout_s=0.5, on_error="continue")
    async with rest(hub) as http:
        told = (await http.get(f"/api/runs/{run['id']}/events", headers={"Accept": "text/event-stream"})).text
        assert "nobody answered in time" in told
        assert await say(hub, way, run, "blue")
        ended = (await http.get(f"/api/runs/{run['id']}")).json()
    assert (ended["state"], ended["parts"]) == ("completed", [])
