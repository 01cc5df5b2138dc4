"""An MCP server's tools as the skills of an A2A agent, in a run: arguments, questions, failures, progress."""

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

SERVER = Path(__file__).resolve().parents[2] / "examples" / "everything_server.py"


async def send(hub: WholeHub, skill: str, parts: list[dict[str, Any]], *, task: dict[str, Any] | None = None) -> Any:
    message: dict[str, Any] = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts}
    if task is None:
        message["metadata"] = {"interhub/skill": skill}
    else:
        message["taskId"] = task["id"]
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    with anyio.fail_after(20):
        answer = await hub.client.post("/agents/everything/a2a", json=body, headers={"A2A-Version": "1.0"})
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
