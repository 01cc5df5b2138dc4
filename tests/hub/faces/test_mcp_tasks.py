"""The Tasks extension at `/mcp`, and an upstream server's own tasks at `/agents/{id}/mcp`; what is on the wire."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from interhub.adapters.mcp import McpAdapter
from tests.support.mcp_hub import small_hub
from tests.support.mcp_servers import ROOT, at, over_http
from tests.support.mcp_site import mcp_site
from tests.support.task_client import KNOWS_TASKS, TASKS, Refused, TaskClient, task_client

pytestmark = pytest.mark.anyio

SERVER = ROOT / "tests" / "support" / "mcp_tasks.py"
NOBODY: dict[str, Any] = {"elicitation": {}}
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tasks/get", {}),
    ("tasks/cancel", {}),
    ("tasks/update", {"inputResponses": {}}),
)


async def refusal(client: TaskClient, method: str, task_id: str, **more: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        await client.request(method, taskId=task_id, **more)
    return refused.value.code, refused.value.message.replace(task_id, "ID")


async def test_a_delegation_is_a_task_with_the_id_of_its_run() -> None:
    async with mcp_site() as site, task_client(site.url, key="ann") as client:
        found = await client.request("server/discover")
        assert TASKS in found["capabilities"]["extensions"]
        created = await client.call("delegate", {"goal": "echo hello"})
        assert created["resultType"] == "task"
        assert created["status"] == "working"
        task_id = created["taskId"]
        ended = await client.until(task_id, "completed")
        assert ended["result"]["structuredContent"]["run_id"] == task_id
        assert ended["result"]["structuredContent"]["answer"] == "hello"
        asked = await client.request("tasks/get", taskId=task_id)
        assert asked["resultType"] == "complete"
        assert asked["result"] == ended["result"]
        status = await client.call("run_status", {"run_id": task_id})
        assert status["structuredContent"]["state"] == "completed"


async def test_a_delegation_that_fails_completes_with_an_error_for_the_model() -> None:
    async with mcp_site() as site, task_client(site.url, key="ann") as client:
        created = await client.call("delegate", {"goal": "fail badly"})
        ended = await client.until(created["taskId"], "completed", "failed")
        assert ended["status"] == "completed"
        assert ended["result"]["isError"] is True
        wrong = await client.call("delegate", {"goal": "x", "workflow": {"no": "steps"}})
        assert wrong["isError"] is True


async def test_clients_without_tasks_and_those_that_do_not_want_to_wait_get_the_run() -> None:
    async with mcp_site() as site:
        async with task_client(site.url, key="ann", capabilities=NOBODY) as client:
            plain = await client.call("delegate", {"goal": "echo hello"})
            assert plain["resultType"] == "complete"
            assert plain["structuredContent"]["answer"] == "hello"
        async with task_client(site.url, key="ann") as client:
            at_once = await client.call("delegate", {"goal": "hold", "wait_s": 0})
            assert at_once["resultType"] == "complete"
            assert at_once["structuredContent"]["run_id"]


async def test_what_a_task_asks_is_answered_by_an_update() -> None:
    async with mcp_site() as site, task_client(site.url, key="ann") as client:
        task_id = (await client.call("delegate", {"goal": "ask"}))["taskId"]
        asking = await client.until(task_id, "input_required")
        ((key, request),) = asking["inputRequests"].items()
        assert request["method"] == "elicitation/create"
        assert "Which colour?" in request["params"]["message"]
        cancelled = {key: {"action": "cancel"}, "unknown": {"action": "accept"}}
        assert await client.request("tasks/update", taskId=task_id, inputResponses=cancelled)
        still = await client.request("tasks/get", taskId=task_id)
        assert still["inputRequests"] == asking["inputRequests"]
        wrong = await refusal(client, "tasks/update", task_id, inputResponses={key: {"colour": "blue"}})
        assert wrong[0] == -32602
        accepted = {key: {"action": "accept", "content": {"colour": "blue"}}}
        acknowledged = await client.request("tasks/update", taskId=task_id, inputResponses=accepted)
        assert set(acknowledged) - {"_meta"} == {"resultType"}
        ended = await client.until(task_id, "completed")
        assert "blue" in str(ended["result"])


async def test_a_client_that_cannot_be_asked_is_told_who_asks_what() -> None:
    capabilities = {"extensions": KNOWS_TASKS["extensions"]}
    async with mcp_site() as site, task_client(site.url, key="ann", capabilities=capabilities) as client:
        task_id = (await client.call("delegate", {"goal": "ask"}))["taskId"]
        with anyio.fail_after(10):
            async with client.listening(task_id) as notes:
                async for note in notes:
                    if "Which colour?" in note["params"].get("statusMessage", ""):
                        break
        told = await client.request("tasks/get", taskId=task_id)
        assert told["status"] == "working"
        assert "inputRequests" not in told


async def test_a_task_is_cancelled_once_and_the_run_with_it() -> None:
    async with mcp_site() as site, task_client(site.url, key="ann") as client:
        task_id = (await client.call("delegate", {"goal": "hold"}))["taskId"]
        for _ in range(2):
            acknowledged = await client.request("tasks/cancel", taskId=task_id)
            assert set(acknowledged) - {"_meta"} == {"resultType"}
        assert (await client.request("tasks/get", taskId=task_id))["status"] == "cancelled"
        status = await client.call("run_status", {"run_id": task_id})
        assert status["structuredContent"]["state"] == "canceled"


async def test_another_principals_task_is_like_none() -> None:
    async with mcp_site() as site, task_client(site.url, key="ann") as ann, task_client(site.url, key="bob") as bob:
        task_id = (await ann.call("delegate", {"goal": "hold"}))["taskId"]
        for method, more in METHODS:
            assert await refusal(bob, method, task_id, **more) == await refusal(bob, method, "no-such-id", **more)
        async with bob.listening(task_id, "no-such-id") as notes:
            assert (await anext(notes))["params"]["notifications"] == {"taskIds": []}
        async with ann.listening(task_id, "no-such-id") as notes:
            assert (await anext(notes))["params"]["notifications"] == {"taskIds": [task_id]}
        assert (await ann.request("tasks/get", taskId=task_id))["status"] == "working"


async def test_who_does_not_declare_the_extension_is_told_to() -> None:
    async with (
        mcp_site() as site,
        task_client(site.url, key="ann") as ann,
        task_client(site.url, key="ann", capabilities={}) as old,
    ):
        task_id = (await ann.call("delegate", {"goal": "hold"}))["taskId"]
        assert (await refusal(old, "tasks/get", task_id))[0] == -32021
        with pytest.raises(Refused) as refused:
            async with old.listening(task_id) as notes:
                await anext(notes)
        assert refused.value.data["requiredCapabilities"] == {"extensions": {TASKS: {}}}


async def test_an_upstreams_own_task_passes_through_under_an_id_of_the_caller_alone(tmp_path: Path) -> None:
    async with (
        over_http(SERVER, "--log", str(tmp_path / "log")) as url,
        small_hub({"mcp": McpAdapter()}) as (hub, address),
    ):
        await hub.add("up", "mcp", at(url))
        place = f"{address}/agents/up/mcp"
        async with (
            task_client(place, key="ann") as ann,
            task_client(place, key="bob") as bob,
            task_client(url) as itself,
        ):
            created = await ann.call("ask")
            task_id = created["taskId"]
            assert created["resultType"] == "task"
            asking = await ann.until(task_id, "input_required")
            assert asking["taskId"] == task_id
            assert (await ann.request("tasks/get", taskId=task_id))["taskId"] == task_id
            for method, more in METHODS:
                assert await refusal(bob, method, task_id, **more) == await refusal(bob, method, "no-such-id", **more)
            async with bob.listening(task_id) as notes:
                assert (await anext(notes))["params"]["notifications"] == {"taskIds": []}
            assert (await refusal(itself, "tasks/get", task_id))[0] == -32602
            answers = {key: {"action": "accept", "content": {"said": key}} for key in asking["inputRequests"]}
            await ann.request("tasks/update", taskId=task_id, inputResponses=answers)
            ended = await ann.until(task_id, "completed")
            assert ended["result"]["content"] == [{"type": "text", "text": "one=one, two=two"}]
            held = (await ann.call("hold"))["taskId"]
            await ann.request("tasks/cancel", taskId=held)
            assert (await ann.until(held, "cancelled"))["status"] == "cancelled"
        assert (tmp_path / "log").read_text().splitlines() == ["call ask", "call hold", "cancelled hold"]
