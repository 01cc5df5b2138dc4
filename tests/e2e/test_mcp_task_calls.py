"""Calls at `/mcp` as tasks, through a whole hub: what takes long is a task, and its result is the call's own."""

from pathlib import Path

import pytest

from tests.support.task_client import Refused, task_client
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

JOBS = Path(__file__).with_name("jobs.py")


async def test_long_calls_are_tasks_whose_results_are_those_of_the_call(tmp_path: Path) -> None:
    async with whole_hub(tmp_path, local={"jobs": f"{JOBS}:jobs"}) as hub:
        place = f"{hub.url}/mcp"
        async with (
            task_client(place, key=hub.key) as client,
            task_client(place, key=hub.key, capabilities={"elicitation": {}}) as plain,
            task_client(f"{hub.url}/agents/jobs/mcp", key=hub.key) as single,
        ):
            wanted = {"seconds": 0, "label": "x"}
            at_once = await plain.call("jobs__slow_compute", wanted)
            for name, arguments in (
                ("jobs__slow_compute", wanted),
                ("call", {"agent": "jobs", "capability": "slow_compute", "arguments": wanted}),
            ):
                created = await client.call(name, arguments)
                assert created["resultType"] == "task", created
                ended = await client.until(created["taskId"], "completed")
                assert ended["result"]["content"] == at_once["content"]
                assert ended["result"]["structuredContent"] == at_once["structuredContent"]
            mirrored = await single.request("tasks/get", taskId=created["taskId"])
            assert mirrored["result"]["content"] == at_once["content"]

            short = await client.call("jobs__greet", {})
            assert short["resultType"] == "complete"
            with pytest.raises(Refused) as refused:
                await plain.call("jobs__failing_job")
            assert refused.value.code == -32021
            failing = (await client.call("jobs__failing_job"))["taskId"]
            assert (await client.until(failing, "completed"))["result"]["isError"] is True
            breaking = (await client.call("jobs__protocol_error_job"))["taskId"]
            assert (await client.until(breaking, "failed"))["error"]["code"] == -32603

            delegated = (await client.call("delegate", {"goal": "x", "agent": "jobs", "capability": "greet"}))["taskId"]
            await client.until(delegated, "completed")
            with pytest.raises(Refused, match="there is no task"):
                await single.request("tasks/get", taskId=delegated)
