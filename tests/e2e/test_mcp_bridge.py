"""The bridge as the process that a host starts, in front of a real hub: everything MCP has, in both eras."""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.hub_process import COMMAND, Cli, HubProcess, cli, environment, hub_process
from tests.support.mcp_servers import EVERYTHING
from tests.support.stdio_host import ProcessHost, cancelled, legacy, process_host, request

pytestmark = pytest.mark.anyio

ERAS = ["modern", "legacy"]
CAPABILITIES: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
ABLE = {"io.modelcontextprotocol/clientCapabilities": CAPABILITIES}
TASKS = "io.modelcontextprotocol/tasks"
KNOWS_TASKS: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}}}
PROFILES = """
[catalogue.profiles.sums]
mode = "all"
agents = ["every"]
capabilities = ["add"]
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[HubProcess]:
    folder = tmp_path_factory.mktemp("bridge")
    (folder / "interhub.toml").write_text(PROFILES)
    with hub_process(cli(folder)) as running:
        add_everything(running.cli)
        yield running


def add_everything(command: Cli) -> None:
    added = command("agents", "add", "--name", "every", "--", sys.executable, "-W", "ignore", str(EVERYTHING))
    assert added.code == 0, added.err


def bridge(command: Cli, *options: str) -> AbstractAsyncContextManager[ProcessHost]:
    line = [*COMMAND, "--data-dir", str(command.data_dir), "mcp", *options]
    return process_host(line, env=environment(command.home), cwd=command.cwd)


class Speaker:
    """A host that says the same in either era."""

    def __init__(self, host: ProcessHost, era: str) -> None:
        self.host = host
        self.era = era

    def request(self, number: int, method: str, *, meta: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
        if self.era == "modern":
            return request(number, method, meta={**ABLE, **(meta or {})}, **params)
        return legacy(number, method, **({"_meta": meta} if meta else {}), **params)

    def call(self, number: int, tool: str, *, meta: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        return self.request(number, "tools/call", meta=meta, name=tool, arguments=arguments)


@asynccontextmanager
async def speaking(hub: HubProcess, era: str, *options: str) -> AsyncGenerator[Speaker]:
    with anyio.fail_after(60):
        async with bridge(hub.cli, *options) as host:
            if era == "legacy":
                await host.begin()
            yield Speaker(host, era)


@pytest.mark.parametrize("era", ERAS)
async def test_progress_and_log_lines_come_before_the_answer(hub: HubProcess, era: str) -> None:
    async with speaking(hub, era, "--agent", "every") as it:
        host = it.host
        await host.say(it.call(1, "test_tool_with_progress", meta={"progressToken": "p-1"}))
        await host.answer_to(1)
        told = [message["params"] for message in host.heard("notifications/progress")]
        assert [each["progress"] for each in told] == [0, 50, 100]
        assert {each["progressToken"] for each in told} == {"p-1"}
        if era == "legacy":
            await host.ask(it.request(2, "logging/setLevel", level="info"))
        await host.say(it.call(3, "test_tool_with_logging", meta={"io.modelcontextprotocol/logLevel": "info"}))
        await host.answer_to(3)
        assert len(host.heard("notifications/message")) == 3


@pytest.mark.parametrize("era", ERAS)
async def test_a_change_of_the_servers_tools_is_told(hub: HubProcess, era: str) -> None:
    async with speaking(hub, era, "--agent", "every") as it:
        host = it.host
        if era == "modern":
            await host.say(it.request(1, "subscriptions/listen", notifications={"toolsListChanged": True}))
            await host.notice("notifications/subscriptions/acknowledged")
        await host.say(it.call(2, "test_trigger_tool_change"))
        await host.notice("notifications/tools/list_changed")


async def test_an_older_host_is_asked_for_its_model_and_its_person(hub: HubProcess) -> None:
    async with speaking(hub, "legacy", "--agent", "every") as it:
        host = it.host

        async def reply(method: str, result: dict[str, Any]) -> None:
            asked = await host.notice(method)
            await host.say({"jsonrpc": "2.0", "id": asked["id"], "result": result})

        await host.say(it.call(1, "test_sampling", prompt="Capital?"))
        content = {"type": "text", "text": "Paris"}
        await reply("sampling/createMessage", {"role": "assistant", "content": content, "model": "none"})
        assert "Paris" in json.dumps(await host.answer_to(1))
        await host.say(it.call(2, "order"))
        await reply("elicitation/create", {"action": "accept", "content": {"name": "tea"}})
        await reply("elicitation/create", {"action": "accept", "content": {"ok": True}})
        assert "ordered tea" in json.dumps(await host.answer_to(2))


async def test_a_host_of_today_is_asked_for_all_of_them_at_once(hub: HubProcess) -> None:
    async with speaking(hub, "modern", "--agent", "every") as it:
        tool = "test_input_required_result_multiple_inputs"
        asked = await it.host.ask(it.call(1, tool))
        assert asked["resultType"] == "input_required"
        methods = {key: wanted["method"] for key, wanted in asked["inputRequests"].items()}
        assert methods == {
            "user_name": "elicitation/create",
            "greeting": "sampling/createMessage",
            "client_roots": "roots/list",
        }
        given: dict[str, Any] = {
            "user_name": {"action": "accept", "content": {"name": "Ada"}},
            "greeting": {"role": "assistant", "content": {"type": "text", "text": "Hi"}, "model": "none"},
            "client_roots": {"roots": []},
        }
        again = it.request(
            2, "tools/call", name=tool, arguments={}, inputResponses=given, requestState=asked["requestState"]
        )
        assert "All inputs received" in json.dumps(await it.host.ask(again))


@pytest.mark.parametrize("era", ERAS)
async def test_what_a_host_takes_back_is_cancelled_at_the_server(hub: HubProcess, era: str) -> None:
    async with speaking(hub, era, "--agent", "every") as it:
        host = it.host
        before = (await host.ask(it.call(1, "count_cancelled")))["structuredContent"]["cancelled"]
        await host.say(it.call(2, "slow", meta={"progressToken": 2}, seconds=600))
        await host.notice("notifications/progress")
        await host.say(cancelled(2))
        number = 3
        while (await host.ask(it.call(number, "count_cancelled")))["structuredContent"]["cancelled"] == before:
            number += 1
        assert 2 not in [message.get("id") for message in host.seen]


async def test_a_tool_that_promises_a_header_is_called_without_being_listed(hub: HubProcess) -> None:
    async with speaking(hub, "modern", "--agent", "every") as it:
        result = await it.host.ask(it.call(1, "test_x_mcp_header", region="Île de France"))
        assert result["content"][0]["text"] == "region=Île de France"


@pytest.mark.parametrize("era", ERAS)
async def test_a_profile_is_what_a_host_sees(hub: HubProcess, era: str) -> None:
    async with speaking(hub, era, "--profile", "sums") as it:
        listed = await it.host.ask(it.request(1, "tools/list"))
        assert [tool["name"] for tool in listed["tools"] if "__" in tool["name"]] == ["every__add"]
        assert (await it.host.ask(it.call(2, "every__add", a=1, b=2)))["structuredContent"] == {"sum": 3}


async def test_a_profile_that_there_is_none_of_is_named_to_the_host(hub: HubProcess) -> None:
    async with bridge(hub.cli, "--profile", "nothing") as host:
        await host.say(request(1, "tools/list"))
        assert "nothing" in (await host.answer_to(1))["error"]["message"]
    both = hub.cli("mcp", "--agent", "every", "--profile", "sums")
    assert both.code == 1
    assert "--agent or --profile" in both.err


async def test_a_delegation_is_a_task_that_is_heard_of_and_cancelled(hub: HubProcess) -> None:
    slow = {"goal": "sleep", "agent": "every", "capability": "slow", "arguments": {"seconds": 600}}
    async with speaking(hub, "modern") as it:
        host = it.host
        created = await host.ask(it.request(1, "tools/call", meta=KNOWS_TASKS, name="delegate", arguments=slow))
        assert created["resultType"] == "task", created
        task = created["taskId"]
        heard = {"taskIds": [task]}
        await host.say(it.request(2, "subscriptions/listen", meta=KNOWS_TASKS, notifications=heard))
        await host.notice("notifications/subscriptions/acknowledged")
        assert (await host.ask(it.request(3, "tasks/get", meta=KNOWS_TASKS, taskId=task)))["status"] == "working"
        await host.ask(it.request(4, "tasks/cancel", meta=KNOWS_TASKS, taskId=task))
        while (await host.notice("notifications/tasks"))["params"]["status"] != "cancelled":
            pass


@pytest.mark.parametrize("era", ERAS)
async def test_a_message_of_megabytes_passes_and_one_too_large_is_refused_alone(hub: HubProcess, era: str) -> None:
    async with speaking(hub, era, "--agent", "every") as it:
        much = "ü\u2028" * 500_000
        seen = (await it.host.ask(it.call(1, "reflect", much=much)))["structuredContent"]
        assert seen["arguments"]["much"] == much
        await it.host.say(it.call(2, "reflect", much="x" * 20 * 1024 * 1024))
        refused = await it.host.answer_to(2)
        assert "larger than" in refused["error"]["message"], refused
        assert (await it.host.ask(it.call(3, "add", a=1, b=2)))["structuredContent"] == {"sum": 3}


async def test_a_host_that_writes_for_long_before_it_reads_is_still_served(hub: HubProcess) -> None:
    line = [*COMMAND, "--data-dir", str(hub.cli.data_dir), "mcp", "--agent", "every"]
    asked = [
        request(number, "tools/call", name="reflect", arguments={"much": "x" * 100_000}) for number in range(1, 61)
    ]
    said = "".join(json.dumps(each) + "\n" for each in asked).encode()
    with anyio.fail_after(60):
        async with await anyio.open_process(line, env=environment(hub.cli.home), stderr=sys.stderr) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            # Nothing is read meanwhile: a bridge that waited for us to read would never read the rest of this.
            await process.stdin.send(said)
            await process.stdin.aclose()
            answers = b""
            async for chunk in process.stdout:
                answers += chunk
            assert await process.wait() == 0
    ids = [json.loads(answer)["id"] for answer in answers.splitlines()]
    assert sorted(ids) == list(range(1, 61))


@pytest.mark.parametrize("era", ERAS)
async def test_the_bridge_ends_with_its_host(hub: HubProcess, era: str) -> None:
    async with speaking(hub, era, "--agent", "every") as it:
        await it.host.ask(it.call(1, "add", a=1, b=2))
        assert await it.host.leave() == 0


async def test_the_bridge_ends_when_nobody_reads_it_any_more(hub: HubProcess) -> None:
    line = [*COMMAND, "--data-dir", str(hub.cli.data_dir), "mcp", "--agent", "every"]
    ours, theirs = os.pipe()
    with anyio.fail_after(30):
        async with await anyio.open_process(line, env=environment(hub.cli.home), stdout=theirs) as process:
            os.close(theirs)
            os.close(ours)
            assert process.stdin is not None
            await process.stdin.send(json.dumps(request(1, "tools/list")).encode() + b"\n")
            assert await process.wait() == 0


@pytest.mark.parametrize("era", ERAS)
async def test_an_idle_host_hears_of_a_hub_that_was_killed_and_started_again(era: str, tmp_path: Path) -> None:
    command = cli(tmp_path)
    watched = "test://watched-resource"
    with anyio.fail_after(90):
        with hub_process(command) as first:
            add_everything(command)
            async with speaking(first, era, "--agent", "every") as it:
                host = it.host
                if era == "modern":
                    wanted = {"toolsListChanged": True, "resourceSubscriptions": [watched]}
                    await host.say(it.request(1, "subscriptions/listen", notifications=wanted))
                    await host.notice("notifications/subscriptions/acknowledged")
                else:
                    await host.ask(it.request(1, "resources/subscribe", uri=watched))
                os.kill(first.pid, signal.SIGKILL)
                await anyio.to_thread.run_sync(first.process.wait)
                with hub_process(command):
                    await host.notice("notifications/tools/list_changed")
                    updated = await host.notice("notifications/resources/updated")
                    assert updated["params"]["uri"] == watched
                    await host.say(it.call(2, "test_trigger_tool_change"))
                    await host.notice("notifications/tools/list_changed")
