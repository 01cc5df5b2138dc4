"""A2A agents over MCP, MCP servers over A2A, and one behind the other: what both can carry comes through."""

import sys
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from interhub.hub.auth import key_hash
from interhub.hub.settings import Auth
from tests.support.processes import peer
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SERVER = EXAMPLES / "everything_server.py"
OTHER_KEY = "0123456789abcdef0123456789abcdef"
LARGE = 700_000


async def send(
    hub: WholeHub,
    skill: str,
    parts: list[dict[str, Any]],
    *,
    task: dict[str, Any] | None = None,
    agent: str = "everything",
) -> Any:
    message: dict[str, Any] = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts}
    if task is None:
        message["metadata"] = {"interhub/skill": skill} if skill else {}
    else:
        message["taskId"] = task["id"]
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    with anyio.fail_after(20):
        answer = await hub.client.post(f"/agents/{agent}/a2a", json=body, headers={"A2A-Version": "1.0"})
    said = answer.json()
    return said["result"]["task"] if "result" in said else said["error"]


async def test_tools_of_an_mcp_server_are_skills_that_run_ask_and_fail(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub:
        command = [sys.executable, "-W", "ignore", str(SERVER)]
        added = await hub.client.post("/api/agents", json={"kind": "command", "command": command, "id": "everything"})
        assert added.status_code == 201, added.text

        task = await send(hub, "add", [{"data": {"a": 2, "b": 3}}])
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        assert task["artifacts"][0]["parts"][0] == {"text": "5"}
        assert task["artifacts"][0]["parts"][1]["data"] == {"sum": 5}

        failed = await send(hub, "test_error_handling", [{"data": {}}])
        assert failed["status"]["state"] == "TASK_STATE_FAILED"
        assert failed["status"]["message"]["metadata"]["interhub/reason"] == "AGENT_REFUSED"

        asked = await send(hub, "test_input_required_result_elicitation", [{"data": {}}])
        assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        schema = asked["status"]["message"]["metadata"]["interhub/schema"]
        answer = dict.fromkeys(schema["properties"], "Ada")
        done = await send(hub, "", [{"data": answer}], task=asked)
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"
        assert "Ada" in str(done["artifacts"])

        unknown = await send(hub, "no-such-tool", [{"data": {}}])
        assert unknown["data"][0]["metadata"]["code"] == "CAPABILITY_NOT_FOUND"


@asynccontextmanager
async def mcp_client(hub: WholeHub, path: str, mode: str, key: str = "") -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {key or hub.key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(hub.url + path, http_client=http), mode=mode) as client,
    ):
        yield client


ANSWERS = [
    "tck-complete-task",
    "tck-artifact-text",
    "tck-artifact-file",
    "tck-artifact-file-url",
    "tck-artifact-data",
    "tck-stream-chunked",
]


async def test_an_a2a_agent_as_an_mcp_server_as_an_a2a_agent_answers_as_it_does_itself(tmp_path: Path) -> None:
    with peer(sys.executable, EXAMPLES / "tck_agent.py") as remote:
        async with whole_hub(tmp_path) as hub:
            endpoint = {
                "binding": "MCP-HTTP",
                "url": f"{hub.url}/agents/itself/mcp",
                "headers": {"Authorization": f"Bearer {hub.key}"},
            }
            for body in (
                {"kind": "url", "id": "itself", "url": remote.url},
                {"kind": "endpoint", "adapter": "mcp", "id": "back", "endpoint": endpoint},
            ):
                added = await hub.client.post("/api/agents", json=body)
                assert added.status_code == 201, added.text
            for text in ANSWERS:
                itself, back = [await send(hub, "", [{"text": text}], agent=agent) for agent in ("itself", "back")]
                assert back["status"]["state"] == itself["status"]["state"] == "TASK_STATE_COMPLETED"
                assert made(back) == made(itself), text
            asked = await send(hub, "", [{"text": "tck-multi-turn"}], agent="back")
            assert asked["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
            assert "more input please" in asked["status"]["message"]["parts"][0]["text"]
            done = await send(hub, "", [{"text": "done"}], task=asked, agent="back")
            assert made(done)[-1][1][0] == {"text": "multi-turn complete"}
            failed = await send(hub, "", [{"text": "tck-task-failure"}], agent="back")
            assert failed["status"]["state"] == "TASK_STATE_FAILED"
            assert "tck-task-failure ok" in failed["status"]["message"]["parts"][0]["text"]


def made(task: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the artifacts by name, without what MCP's structured content repeats."""
    return [
        (artifact["name"], [part for part in artifact["parts"] if "answer" not in part.get("data", ())])
        for artifact in task["artifacts"]
    ]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_what_is_too_large_for_a_result_is_linked_to_and_read_later_by_its_owner_alone(
    tmp_path: Path, mode: str
) -> None:
    async with whole_hub(tmp_path, auth=Auth(key_hashes=(key_hash(OTHER_KEY),))) as hub:
        for path, tool in (("/agents/clerk/mcp", "clerk"), ("/mcp", "clerk__clerk")):
            async with mcp_client(hub, path, mode) as client:
                small = await client.call_tool(tool, {"message": "make 1000"})
                assert [block.type for block in small.content] == ["text", "text", "resource"]
                large = await client.call_tool(tool, {"message": f"make {LARGE}"})
                link = large.content[-1]
                assert isinstance(link, types.ResourceLink)
                assert (link.name, link.mime_type, link.size) == ("zeros.bin", "application/x-zeros", LARGE)
                assert large.structured_content is not None
                assert large.structured_content["artifacts"][0]["files"][0]["url"] == link.uri
            async with mcp_client(hub, path, mode) as later:
                (read,) = (await later.read_resource(link.uri)).contents
                assert isinstance(read, types.BlobResourceContents)
                assert b64decode(read.blob) == bytes(LARGE)
                with pytest.raises(MCPError, match="no resource is at"):
                    await later.read_resource(link.uri[:-1] + "7")
            async with mcp_client(hub, path, mode, OTHER_KEY) as other:
                with pytest.raises(MCPError, match="no resource is at"):
                    await other.read_resource(link.uri)


async def test_what_a_delegation_made_is_linked_to_where_it_is_too_large(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub, mcp_client(hub, "/mcp", "2026-07-28") as client:
        done = await client.call_tool("delegate", {"goal": f"make {LARGE}", "agent": "clerk"})
        (link,) = [block for block in done.content if isinstance(block, types.ResourceLink)]
        (read,) = (await client.read_resource(link.uri)).contents
        assert isinstance(read, types.BlobResourceContents)
        assert len(b64decode(read.blob)) == LARGE
