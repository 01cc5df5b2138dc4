"""The hub asked by A2A clients that nobody here wrote: @a2a-js/sdk 1.3, over 1.0 and 0.3, and @a2a-js/sdk 0.3.14."""

import json
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.node import node_tools
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent


async def ask(hub: WholeHub, script: str) -> dict[str, Any]:
    tools = await anyio.to_thread.run_sync(node_tools)
    command = [str(tools.node), str(HERE / script), hub.url, hub.key]
    with anyio.fail_after(60):
        done = await anyio.run_process(command, env=dict(tools.env), check=False, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    said: dict[str, Any] = json.loads(done.stdout)
    return said


async def test_the_js_sdk_of_1_0_does_everything_over_both_bindings_of_both_versions(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub:
        said = await ask(hub, "a2a_js_client.cjs")
    assert said.pop("pure") == ["1.0 JSONRPC", "1.0 HTTP+JSON"]
    assert set(said) == {"1.0 JSONRPC", "1.0 HTTP+JSON", "0.3 JSONRPC", "0.3 HTTP+JSON"}
    for face, got in said.items():
        assert got["blocking"] == ["TASK_STATE_COMPLETED", {"answer": "hello"}], face
        assert got["idempotent"] is True
        assert got["stream"]["kinds"][0] == "task"
        assert "artifactUpdate" in got["stream"]["kinds"]
        assert got["stream"]["last"] == "TASK_STATE_COMPLETED"
        assert got["got"] in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
        assert got["canceled"] == "TASK_STATE_CANCELED"
        assert got["followed"]["kinds"][0] == "task"
        assert got["followed"]["last"] == "TASK_STATE_CANCELED"
        assert got["asked"] == [
            "TASK_STATE_INPUT_REQUIRED",
            "Which colour?",
            "TASK_STATE_COMPLETED",
            {"answer": "blue"},
            True,
        ]
        assert got["unknown"]["error"].endswith("TaskNotFoundError")
        assert got["canceledAgain"]["error"].endswith("TaskNotCancelableError")
        if face.startswith("1.0"):
            assert got["listed"] == [2, True]
            assert got["extended"] == ["delegate", "clerk"]


async def test_the_js_sdk_of_0_3_does_everything_over_both_bindings(tmp_path: Path) -> None:
    async with whole_hub(tmp_path) as hub:
        said = await ask(hub, "a2a_js_03_client.cjs")
    assert (said.pop("preferred"), said.pop("version")[:3]) == ("JSONRPC", "0.3")
    assert set(said) == {"JSONRPC", "HTTP+JSON"}
    for face, got in said.items():
        assert got["blocking"] == ["completed", {"answer": "hello"}], face
        assert got["stream"]["kinds"][0] == "task"
        assert (got["stream"]["last"], got["stream"]["final"]) == ("completed", True)
        assert got["got"] in ("submitted", "working")
        assert got["canceled"] == "canceled"
        assert got["followed"]["last"] == "canceled"
        assert got["asked"] == ["input-required", "Which colour?", "completed", {"answer": "blue"}]
        assert got["unknown"]["error"].startswith("TaskNotFound")
