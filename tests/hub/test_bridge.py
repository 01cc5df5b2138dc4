"""The bridge from stdio to the hub: in process over memory streams, and as the process that a host starts."""

import json
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest
from mcp import StdioServerParameters

from interhub.adapters import Principal, Progress
from interhub.adapters.testing import ScriptedAgent, Turn, answer, question
from interhub.hub.bridge import Address, RequestHeaders, bridge
from tests.support.mcp_site import OWN, McpSite, Person, client, fields, mcp_site, text
from tests.support.stdio_host import INITIALIZE, INITIALIZED, Host, legacy, request

pytestmark = pytest.mark.anyio

ANN = Principal(subject="ann")
PROGRAM = """
import sys, anyio
from interhub.hub.bridge import Address, stdio_bridge
anyio.run(stdio_bridge, lambda: Address(url=sys.argv[1], key="ann"))
"""


@dataclass
class Whereabouts:
    """Where the hub is now."""

    url: str
    settled: threading.Event = field(default_factory=threading.Event)
    """Cleared while a hub is being started: who asks then waits, as for a real one."""

    def __post_init__(self) -> None:
        self.settled.set()

    def __call__(self) -> Address:
        self.settled.wait(10)
        if not self.url:
            raise RuntimeError("no hub is running")
        return Address(url=self.url, key="ann")


@asynccontextmanager
async def host(where: Whereabouts, *, drain_s: float = 5.0) -> AsyncGenerator[Host]:
    """Run a bridge, with a host that leaves when the block is left."""
    send_line, lines = anyio.create_memory_object_stream[bytes](16)
    write, written = anyio.create_memory_object_stream[bytes](1000)
    here = Host(send_line, written)

    async def run() -> None:
        with write:
            await bridge(where, lines, write.send, drain_s=drain_s, log=here.log.append)

    with anyio.fail_after(20), lines, written:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield here
            send_line.close()


def writer() -> ScriptedAgent:
    poem = Turn(updates=(Progress(text="thinking"),), end=answer("a poem"))
    return ScriptedAgent("writer").on("write", poem, description="Writes poems")


def program(site: McpSite) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-c", PROGRAM, site.url])


@pytest.mark.parametrize("mode", ["auto", "2026-07-28", "legacy"])
async def test_the_sdks_client_lists_calls_delegates_and_is_asked_over_stdio(mode: str) -> None:
    person = Person(answers={"colour": "blue"})
    async with mcp_site(writer()) as site, client(program(site), mode, person) as hub:
        assert [tool.name for tool in (await hub.list_tools()).tools] == [*OWN, "writer__write"]
        assert text(await hub.call_tool("writer__write", {"message": "hi"})) == "a poem"
        counted = await hub.call_tool("delegate", {"goal": "count 2"}, progress_callback=person.hear)
        assert fields(counted)["answer"] == "counted to 2"
        assert "work (twin/count): counted 1" in person.heard
        assert fields(await hub.call_tool("delegate", {"goal": "ask"}))["data"] == {"colour": "blue"}


async def test_two_hosts_share_one_hub_and_see_the_same_runs() -> None:
    async with mcp_site() as site, client(program(site), "auto") as one, client(program(site), "legacy") as other:
        run = fields(await one.call_tool("delegate", {"goal": "hold", "wait_s": 0}))
        site.supervisor.release(run["run_id"])
        assert fields(await other.call_tool("run_result", {"run_id": run["run_id"]}))["answer"] == "released"


async def test_a_request_whose_id_cannot_be_one_is_refused_and_the_next_is_answered() -> None:
    async with mcp_site() as site, host(Whereabouts(site.url)) as here:
        await here.say({**request(1, "server/discover"), "id": [1]})
        await here.say(request(2, "server/discover"))
        assert "result" in await here.answer_to(2)


async def test_nothing_but_answers_is_on_stdout() -> None:
    async with mcp_site() as site:
        line = json.dumps(request(1, "server/discover"))
        done = await anyio.run_process(
            [sys.executable, "-c", PROGRAM, site.url], input=f"{line}\n".encode(), stderr=subprocess.PIPE
        )
        assert json.loads(done.stdout)["id"] == 1
        assert done.stderr == b""


async def test_stdin_may_end_at_once_and_what_is_in_flight_is_still_answered() -> None:
    async with mcp_site() as site, host(Whereabouts(site.url)) as here:
        await here.say(request(1, "tools/call", name="delegate", arguments={"goal": "hold"}))
        here.lines.close()
        while not (runs := await site.hub.runs(ANN)):
            await anyio.lowlevel.checkpoint()
        site.supervisor.release(runs[0].id)
        assert (await here.answer_to(1))["result"]["structuredContent"]["answer"] == "released"


async def test_what_does_not_end_in_time_is_left() -> None:
    async with mcp_site() as site:
        with anyio.fail_after(5):
            async with host(Whereabouts(site.url), drain_s=0.1) as here:
                await here.say(request(1, "tools/call", name="delegate", arguments={"goal": "hold"}))
                while not await site.hub.runs(ANN):
                    await anyio.lowlevel.checkpoint()


async def test_a_line_that_is_no_message_is_answered_and_the_next_is_served() -> None:
    async with mcp_site() as site, host(Whereabouts(site.url)) as here:
        await here.lines.send(b"{nonsense\n")
        assert (await here.answer_to(None))["error"]["code"] == -32700
        await here.say(7, [])
        assert (await here.answer_to(None))["error"]["code"] == -32600
        await here.say(request(1, "server/discover"))
        assert "result" in await here.answer_to(1)


async def test_names_that_no_header_can_hold_are_called() -> None:
    async with mcp_site() as site, host(Whereabouts(site.url)) as here:
        await here.say(request(1, "tools/call", name="grüße\u2028", arguments={}))
        assert "no tool is called" in (await here.answer_to(1))["error"]["message"]


async def test_a_canceled_modern_request_reaches_the_agent_and_is_not_answered() -> None:
    slow = ScriptedAgent("slow").on("wait", Turn(until=anyio.Event(), end=answer("")))
    async with mcp_site(slow) as site, host(Whereabouts(site.url)) as here:
        await here.say(request(1, "tools/call", name="slow__wait", arguments={"message": "x"}))
        await slow.wait_for_calls(1)
        await here.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        while not slow.canceled:
            await anyio.lowlevel.checkpoint()
        await here.say(request(2, "server/discover"))
        await here.answer_to(2)
    assert [message.get("id") for message in here.seen] == [2]


async def test_a_canceled_legacy_request_reaches_the_agent_and_is_not_answered() -> None:
    slow = ScriptedAgent("slow").on("wait", Turn(until=anyio.Event(), end=answer("")))
    async with mcp_site(slow) as site, host(Whereabouts(site.url)) as here:
        await here.say(INITIALIZE)
        await here.answer_to(0)
        await here.say(INITIALIZED, legacy(1, "tools/call", name="slow__wait", arguments={"message": "x"}))
        await slow.wait_for_calls(1)
        await here.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        while not slow.canceled:
            await anyio.lowlevel.checkpoint()
        await here.say(legacy(2, "ping"))
        await here.answer_to(2)
    assert 1 not in [message.get("id") for message in here.seen]


async def test_a_hub_that_cannot_be_found_is_an_error_and_is_found_later() -> None:
    where = Whereabouts("")
    async with mcp_site() as site, host(where) as here:
        await here.say(request(1, "server/discover"))
        assert (await here.answer_to(1))["error"]["message"] == "no hub is running"
        where.url = site.url
        await here.say(request(2, "server/discover"))
        assert "result" in await here.answer_to(2)


async def test_a_restarted_hub_serves_modern_hosts_as_if_nothing_had_been() -> None:
    where = Whereabouts("")
    async with host(where) as here:
        async with mcp_site() as site:
            where.url = site.url
            await here.say(request(1, "subscriptions/listen", notifications={"toolsListChanged": True}))
            await here.notice("notifications/subscriptions/acknowledged")
        async with mcp_site(writer()) as site:
            where.url = site.url
            await here.say(request(2, "tools/list"))
            changed = await here.notice("notifications/tools/list_changed")
            assert changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == 1
            await site.hub.remove_agent(ANN, "writer")
            await here.notice("notifications/tools/list_changed")
        acknowledged = [m for m in here.seen if m.get("method") == "notifications/subscriptions/acknowledged"]
        assert len(acknowledged) == 1


async def test_a_restarted_hub_gets_the_hosts_legacy_session_back() -> None:
    where = Whereabouts("")
    async with host(where) as here:
        async with mcp_site() as site:
            where.url = site.url
            await here.say(INITIALIZE)
            assert (await here.answer_to(0))["result"]["protocolVersion"] == "2025-11-25"
            await here.say(INITIALIZED, legacy(1, "tools/list"))
            await here.answer_to(1)
        async with mcp_site(writer()) as site:
            where.url = site.url
            await here.say(legacy(2, "tools/call", name="writer__write", arguments={"message": "x"}))
            assert (await here.answer_to(2))["result"]["content"][0]["text"] == "a poem"
        assert "notifications/tools/list_changed" in [message.get("method") for message in here.seen]
        assert [message["id"] for message in here.seen if "result" in message] == [0, 1, 2]


async def test_a_session_that_the_hub_forgot_is_made_again() -> None:
    async with mcp_site(writer()) as site, host(Whereabouts(site.url)) as here:
        await here.say(INITIALIZE)
        await here.answer_to(0)
        await here.say(INITIALIZED)
        for session_id in list(site.face._sessions._server_instances):  # pyright: ignore[reportPrivateUsage]
            await site.face._sessions._server_instances[session_id].terminate()  # pyright: ignore[reportPrivateUsage]
        await here.say(legacy(1, "tools/list"))
        assert "result" in await here.answer_to(1)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_delegation_in_flight_is_sent_again_as_the_same_run_and_a_call_is_not(era: str) -> None:
    slow = ScriptedAgent("slow").on("wait", Turn(until=anyio.Event(), end=answer("")))
    say = request if era == "modern" else legacy
    where = Whereabouts("")
    async with host(where) as here:
        async with mcp_site(slow) as first:
            where.url = first.url
            if era == "legacy":
                await here.say(INITIALIZE)
                await here.answer_to(0)
                await here.say(INITIALIZED)
            await here.say(say(1, "tools/call", name="delegate", arguments={"goal": "hold"}))
            await here.say(say(2, "tools/call", name="slow__wait", arguments={"message": "x"}))
            await slow.wait_for_calls(1)
            while not first.supervisor.assignments:
                await anyio.lowlevel.checkpoint()
            where.settled.clear()
        failed = await here.answer_to(2)
        assert "may or may not have been done" in failed["error"]["message"]
        async with mcp_site() as second:
            where.url = second.url
            where.settled.set()
            while not second.supervisor.assignments:
                await anyio.lowlevel.checkpoint()
            second.supervisor.release((await second.hub.runs(ANN))[0].id)
            assert (await here.answer_to(1))["result"]["structuredContent"]["answer"] == "released"
    (before,), (after,) = first.supervisor.assignments, second.supervisor.assignments
    assert before.idempotency_key == after.idempotency_key != ""


async def test_a_question_of_the_hub_is_relayed_and_its_answer_finds_the_way_back() -> None:
    asker = ScriptedAgent("asker").on("book", question("Which city?"), answer("booked"))
    async with mcp_site(asker) as site, host(Whereabouts(site.url)) as here:
        await here.say(INITIALIZE)
        await here.answer_to(0)
        await here.say(INITIALIZED, legacy(1, "tools/call", name="asker__book", arguments={"message": "x"}))
        asked = await here.notice("elicitation/create")
        assert "Which city?" in asked["params"]["message"]
        reply = {"action": "accept", "content": {"answer": "Rome"}}
        await here.say({"jsonrpc": "2.0", "id": "stale", "result": reply})
        await here.say({"jsonrpc": "2.0", "id": asked["id"], "result": reply})
        assert (await here.answer_to(1))["result"]["content"][0]["text"] == "booked"


def test_a_tools_promised_arguments_are_repeated_in_headers_once_it_was_listed() -> None:
    schema = {
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "place": {"type": "object", "properties": {"far": {"type": "boolean", "x-mcp-header": "Far"}}},
            "list": {"items": {"x-mcp-header": "Never"}},
        }
    }
    call = {"name": "go", "arguments": {"region": "Île", "place": {"far": True}, "list": ["x"]}}
    headers = RequestHeaders()
    plain = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "go"}
    assert headers.of("tools/call", call, "2026-07-28") == plain
    headers.learn({"tools": [{"name": "go", "inputSchema": schema}]})
    promised = {"mcp-param-region": "=?base64?w45sZQ==?=", "mcp-param-far": "true"}
    assert headers.of("tools/call", call, "2026-07-28") == plain | promised
    assert headers.of("tasks/get", {"taskId": "t-1"}, "2026-07-28")["mcp-name"] == "t-1"
