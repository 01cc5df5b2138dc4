"""`/agents/{agent_id}/mcp`, as real clients of both eras see it: servers relayed, other agents as tools."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any, cast

import anyio
import httpx2
import mcp_types as t
import pytest
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.server.connection import Connection as SdkConnection
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from interhub.adapters import (
    DELEGATION_KEY,
    Adapter,
    Call,
    Completed,
    InputRequired,
    Outcome,
    Progress,
    RawPart,
    Report,
    TextPart,
)
from interhub.adapters.mcp import McpAdapter
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent, asked, refused, said
from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, JsonObject, Kind
from interhub.hub.faces.mcp.agent_silence import Silence
from interhub.hub.settings import Server
from tests.support.mcp_hub import SmallHub, small_hub
from tests.support.mcp_servers import EVERYTHING, at, over_http, program, script, serving
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

ERAS = ["auto", "legacy"]
"""How a client begins: by `server/discover`, or by `initialize`."""
SCRIPTED = Endpoint(binding=Binding.LOCAL, url="scripted:writer")


class Person:
    """Answers what a client is asked, and keeps what it is told."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.logs: list[str] = []
        self.progress: list[tuple[float, str | None]] = []
        self.changed = anyio.Event()

    async def elicit(self, context: ClientRequestContext, params: t.ElicitRequestParams) -> t.ElicitResult:
        self.questions.append(params.message)
        form = params.requested_schema if isinstance(params, t.ElicitRequestFormParams) else {}
        content: dict[str, Any] = {
            name: True if field.get("type") == "boolean" else "tea"
            for name, field in cast("Mapping[str, Any]", form.get("properties", {})).items()
        }
        return t.ElicitResult(action="accept", content=content)

    async def sample(
        self, context: ClientRequestContext, params: t.CreateMessageRequestParams
    ) -> t.CreateMessageResult:
        return t.CreateMessageResult(role="assistant", content=t.TextContent(text="Paris"), model="test")

    async def log(self, params: t.LoggingMessageNotificationParams) -> None:
        self.logs.append(str(params.data))

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, message))

    async def hear(self, message: object) -> None:
        if isinstance(message, t.ToolListChangedNotification):
            self.changed.set()


@asynccontextmanager
async def client(
    url: str, era: str, *, person: Person | None = None, name: str = "ada", model: bool = False
) -> AsyncGenerator[Client]:
    """Connect as a person's client."""
    who = person or Person()
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {name}"}, timeout=30) as http,
        Client(
            streamable_http_client(url, http_client=http),
            mode=era,
            elicitation_callback=who.elicit if person else None,
            sampling_callback=who.sample if model else None,
            logging_callback=who.log,
            message_handler=who.hear,
            log_level=None if era == "legacy" else "info",
            cache=None,
        ) as connected,
    ):
        yield connected


@asynccontextmanager
async def site(silence_s: float = inf, /, **agents: Endpoint) -> AsyncGenerator[tuple[SmallHub, str]]:
    """Serve MCP servers by their agents' ids, and yield the hub and the address of their faces."""
    async with small_hub({"mcp": McpAdapter(startup_timeout_s=20)}, silence_s=silence_s) as (hub, address):
        for agent_id, endpoint in agents.items():
            await hub.add(agent_id, "mcp", endpoint)
        yield hub, f"{address}/agents"


def text(result: t.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, t.TextContent))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("upstream", ["both", "legacy", "modern"])
async def test_every_era_of_client_uses_every_era_of_server(era: str, upstream: str) -> None:
    person = Person()
    async with (
        site(every=program(EVERYTHING, "--era", upstream)) as (hub, faces),
        client(f"{faces}/every/mcp", era, person=person) as connected,
    ):
        assert connected.server_info is not None
        assert connected.server_info.name == "everything"
        assert connected.instructions is not None
        tools = (await connected.list_tools()).tools
        assert {"add", "order"} <= {tool.name for tool in tools}
        added = await connected.call_tool("add", {"a": 1, "b": 2})
        assert added.structured_content == {"sum": 3}
        await connected.call_tool("test_tool_with_progress", progress_callback=person.on_progress)
        assert person.progress == [(done, f"Completed step {done} of 100") for done in (0, 50, 100)]
        ordered = await connected.call_tool("order", {})
        assert text(ordered) == "ordered tea"
        assert person.questions == ["What is it to be?", "Are you sure?"]
        prompt = await connected.get_prompt("test_simple_prompt")
        assert isinstance(prompt.messages[0].content, t.TextContent)
        read = await connected.read_resource("test://static-text")
        assert isinstance(read.contents[0], t.TextResourceContents)
        with pytest.raises(MCPError, match="unknown tool"):
            await connected.call_tool("nothing", {})
        assert ("ada", "add", "completed") in hub.records


@pytest.mark.parametrize("code", [-32022, -32601])
async def test_a_legacy_client_uses_a_server_that_knows_no_handshake_however_it_says_so(code: int) -> None:
    def result(method: str) -> dict[str, Any] | None:
        match method:
            case "server/discover":
                return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            case "tools/list":
                return {"tools": [{"name": "say", "inputSchema": {"type": "object"}}]}
            case "tools/call":
                return {"content": [{"type": "text", "text": "said"}]}
            case _:
                return None

    async def answer(request: Request) -> JSONResponse:
        asked = await request.json()
        found = result(asked["method"])
        if found is None:
            error = {"code": code, "message": "No", "data": {"supported": ["2026-07-28"], "requested": "2025-11-25"}}
            return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        whole = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **found}
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": whole})

    async with (
        serving(Starlette(routes=[Route("/mcp", answer, methods=["POST"])])) as url,
        site(plain=at(f"{url}/mcp")) as (_, faces),
        client(f"{faces}/plain/mcp", "legacy") as connected,
    ):
        assert text(await connected.call_tool("say", {})) == "said"


async def test_a_legacy_client_lends_its_model_and_hears_the_log_of_its_own_session() -> None:
    ada, eve = Person(), Person()
    async with site(every=program(EVERYTHING)) as (_, faces):
        url = f"{faces}/every/mcp"
        async with (
            client(url, "legacy", person=ada, model=True) as one,
            client(url, "legacy", person=eve, name="eve") as other,
        ):
            assert text(await one.call_tool("test_sampling", {"prompt": "?"})) == "LLM response: Paris"
            assert "not" in text(await other.call_tool("test_sampling", {"prompt": "?"}))
            await one.call_tool("test_tool_with_logging", {})
            await one.call_tool("add", {"a": 1, "b": 1})
    assert len(ada.logs) == 3
    assert eve.logs == []


@pytest.mark.parametrize("upstream", ["both", "legacy", "modern"])
@pytest.mark.parametrize("era", ERAS)
async def test_changes_of_a_servers_lists_reach_the_client(era: str, upstream: str) -> None:
    person = Person()
    async with (
        site(every=program(EVERYTHING, "--era", upstream)) as (_, faces),
        client(f"{faces}/every/mcp", era, person=person) as connected,
    ):
        with anyio.fail_after(20):
            if era == "legacy":
                while not person.changed.is_set():
                    await connected.call_tool("test_trigger_tool_change", {})
                    await anyio.sleep(0.02)  # the standing stream opens in its own time, and nothing tells when
                return
            async with connected.listen(tools_list_changed=True) as subscription:
                await connected.call_tool("test_trigger_tool_change", {})
                assert type(await anext(aiter(subscription))).__name__ == "ToolsListChanged"


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_request_is_cancelled_at_the_server(era: str) -> None:
    begun = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with (
        over_http(EVERYTHING) as upstream,
        site(every=at(upstream)) as (hub, faces),
        client(f"{faces}/every/mcp", era) as connected,
    ):
        async with anyio.create_task_group() as tasks:

            async def slow() -> None:
                await connected.call_tool("slow", {"seconds": 60}, progress_callback=on_progress)

            tasks.start_soon(slow)
            with anyio.fail_after(10):
                await begun.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(10):
            while True:
                counted = await connected.call_tool("count_cancelled", {})
                if counted.structured_content == {"cancelled": 1}:
                    break
        assert ("ada", "slow", "canceled") in hub.records


@pytest.mark.parametrize("upstream", ["legacy", "modern"])
@pytest.mark.parametrize("era", ERAS)
async def test_a_call_of_which_a_server_says_nothing_ends_and_is_cancelled_there(era: str, upstream: str) -> None:
    async with (
        over_http(EVERYTHING, "--era", upstream) as address,
        site(1.0, every=at(address)) as (hub, faces),
        client(f"{faces}/every/mcp", era) as connected,
    ):
        with anyio.fail_after(20):
            with pytest.raises(MCPError, match="no answer within 1 s"):
                await connected.call_tool("slow", {"seconds": 60})
            while True:
                counted = await connected.call_tool("count_cancelled", {})
                if counted.structured_content == {"cancelled": 1}:
                    break
        assert ("ada", "slow", "AGENT_TIMEOUT") in hub.records


async def test_the_silence_of_a_server_does_not_pass_while_its_client_is_asked() -> None:
    silence = Silence(0.05)
    with anyio.fail_after(5):
        with silence.limited(), silence.broken():
            await anyio.sleep(0.1)  # the time itself is the subject
        with pytest.raises(TimeoutError), silence.limited():
            await anyio.sleep_forever()


@pytest.mark.parametrize("era", ERAS)
async def test_the_callers_credentials_stay_here_and_its_meta_goes_on(era: str) -> None:
    async with (
        over_http(EVERYTHING) as upstream,
        site(every=at(upstream)) as (_, faces),
        client(f"{faces}/every/mcp", era) as connected,
    ):
        seen = (
            await connected.call_tool("reflect", {}, meta=cast("t.RequestParamsMeta", {"example.com/a": 1}))
        ).structured_content
    assert seen is not None
    assert "authorization" not in seen["headers"]
    assert seen["meta"]["example.com/a"] == 1


async def test_unknown_fields_survive_in_both_directions() -> None:
    server = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    method, number, params = request["method"], request.get("id"), request.get("params", {})
    result = {"server/discover": {"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0,
                  "cacheScope": "private", "capabilities": {"tools": {"x-more": None}}},
              "tools/list": {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "x-list": None,
                  "tools": [{"name": "look", "inputSchema": {"type": "object"}, "x-tool": {"deep": None}}]},
              "tools/call": {"resultType": "complete", "content": [{"type": "hologram"}], "got": params}}
    if method in result:
        print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result[method]}), flush=True)
"""
    async with site(raw=script(server)) as (_, faces):
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"x-caps": None},
            "x-null": None,
        }

        async def post(method: str, params: dict[str, Any]) -> Any:
            body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": meta}}
            headers = {
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": method,
                "Accept": "application/json, text/event-stream",
                **({"Mcp-Name": params["name"]} if "name" in params else {}),
            }
            async with httpx2.AsyncClient() as http:
                return (await http.post(f"{faces}/raw/mcp", json=body, headers=headers)).json()

        assert (await post("server/discover", {}))["result"]["capabilities"] == {"tools": {"x-more": None}}
        listed = (await post("tools/list", {}))["result"]
        assert listed["x-list"] is None
        assert listed["tools"][0]["x-tool"] == {"deep": None}
        called = (await post("tools/call", {"name": "look", "arguments": {"a": None}, "x-param": [None]}))["result"]
        assert called["content"] == [{"type": "hologram"}]
        assert DELEGATION_KEY in called["got"]["_meta"], "our one addition: what finds circles of calls"
        del called["got"]["_meta"][DELEGATION_KEY]
        assert called["got"] == {"name": "look", "arguments": {"a": None}, "x-param": [None], "_meta": meta}


@pytest.mark.parametrize("era", ERAS)
async def test_what_the_policy_denies_does_not_reach_the_server(era: str) -> None:
    async with site(every=program(EVERYTHING)) as (hub, faces):
        hub.denied.add("add")
        async with client(f"{faces}/every/mcp", era) as connected:
            with pytest.raises(MCPError, match="add of agent every is not allowed"):
                await connected.call_tool("add", {"a": 1, "b": 2})
            assert text(await connected.call_tool("test_simple_text", {}))
    assert [record[1] for record in hub.records] == ["test_simple_text"]


async def test_somebody_elses_session_is_as_good_as_none() -> None:
    async with site(every=program(EVERYTHING)) as (_, faces):
        url = f"{faces}/every/mcp"
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "a", "version": "1"},
            },
        }
        accept = {"Accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient(headers=accept) as http:
            opened = await http.post(url, json=body, headers={"Authorization": "Bearer ada"})
            assert '"name":"everything"' in opened.text.replace(" ", "")
            session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
            ping = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            stolen = await http.post(url, json=ping, headers={**session, "Authorization": "Bearer eve"})
            none = await http.post(url, json=ping, headers={"Mcp-Session-Id": "0" * 32, "Authorization": "Bearer eve"})
            assert (stolen.status_code, stolen.text) == (none.status_code, none.text)
            assert stolen.status_code == 404
            own = await http.post(url, json=ping, headers={**session, "Authorization": "Bearer ada"})
            assert own.status_code == 200


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_that_is_not_there_or_down_is_an_error_and_the_others_go_on(era: str) -> None:
    async with site(every=program(EVERYTHING)) as (hub, faces):
        card = AgentCard(name="down")
        await hub.add("down", "mcp", at("http://127.0.0.1:9/mcp"), card)
        async with client(f"{faces}/every/mcp", era) as connected:
            with pytest.raises(Exception, match=r"(?s).*") as down:
                async with client(f"{faces}/down/mcp", era) as unreachable:
                    await unreachable.call_tool("add", {})
            assert "nothing answers at 127.0.0.1:9" in _deepest(down.value)
            async with httpx2.AsyncClient() as http:
                missing = await http.post(f"{faces}/nobody/mcp", json={})
            assert missing.status_code == 404
            assert "no agent is registered as 'nobody'" in missing.json()["error"]["message"]
            assert (await connected.call_tool("add", {"a": 1, "b": 2})).structured_content == {"sum": 3}


def _deepest(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return str(error)


async def test_a_legacy_session_outlives_its_server() -> None:
    person = Person()
    async with (
        site(every=program(EVERYTHING)) as (_, faces),
        client(f"{faces}/every/mcp", "legacy", person=person) as connected,
    ):
        with pytest.raises(MCPError, match="exited with status 3"):
            await connected.call_tool("crash", {})
        assert text(await connected.call_tool("order", {})) == "ordered tea"


def test_the_sdk_still_has_what_lives_as_long_as_a_session() -> None:
    connection = SdkConnection.from_envelope("2026-07-28", None, None)
    assert connection.state == {}
    connection.exit_stack.callback(lambda: None)


# Agents that are no MCP servers


def writer() -> tuple[ScriptedAgent, AgentCard, Adapter]:
    async def write(call: Call, report: Report) -> Outcome:
        await report(Progress(text="thinking", done=1, total=2))
        return Completed(parts=(TextPart(text=f"on {asked(call)}"), RawPart(raw=b"x", media_type="image/png")))

    async def ask(call: Call, report: Report) -> Outcome:
        if call.resume is None:
            return InputRequired(question=(TextPart(text="which colour?"),), state={"kept": [1]})
        assert call.resume.state == {"kept": [1]}
        return Completed(parts=(TextPart(text=f"painted {said(Completed(parts=call.resume.answer))}"),))

    agent = ScriptedAgent("writer").on("write", write).on("paint it!", ask).on("fail", refused("out of ink"))
    card = AgentCard(
        name="Writer",
        instructions="Ask it to write.",
        capabilities=(
            Capability(name="write", kind=Kind.SKILL, description="Writes.", examples=("write a poem",)),
            Capability(name="paint it!", kind=Kind.SKILL),
            Capability(name="fail", kind=Kind.SKILL),
        ),
    )
    return agent, card, ScriptedAdapter(agent)


@pytest.mark.parametrize("era", ERAS)
async def test_another_agent_has_its_capabilities_as_tools(era: str) -> None:
    _, card, adapter = writer()
    person = Person()
    async with small_hub({"scripted": adapter}) as (hub, address):
        await hub.add("writer", "scripted", SCRIPTED, card)
        async with client(f"{address}/agents/writer/mcp", era, person=person) as connected:
            assert connected.instructions == "Ask it to write."
            tools = {tool.name: tool for tool in (await connected.list_tools()).tools}
            painting = next(name for name in tools if name.startswith("paint-it-"))
            assert set(tools) == {"write", painting, "fail"}
            assert "write a poem" in (tools["write"].description or "")
            assert tools["write"].input_schema["required"] == ["message"]

            result = await connected.call_tool("write", {"message": "rain"}, progress_callback=person.on_progress)
            assert result.structured_content is not None
            assert result.structured_content["answer"] == "on rain"
            assert isinstance(result.content[1], t.ImageContent)
            assert person.progress == [(1.0, "thinking")]

            assert text(await connected.call_tool(painting, {"message": "the wall"})) == "painted tea"
            assert "which colour?" in person.questions[0]

            failed = await connected.call_tool("fail", {"message": "?"})
            assert failed.is_error
            assert "out of ink" in text(failed)
            wrong = await connected.call_tool("write", {"text": "rain"})
            assert wrong.is_error
            assert "'message' is a required property" in text(wrong)


async def test_tools_of_another_agent_are_shown_without_invisible_characters() -> None:
    agent = ScriptedAgent("writer").on("write", Completed(parts=(TextPart(text="done"),)))
    hidden = "Wri\u200btes\U000e0041."
    schema: JsonObject = {"type": "object", "properties": {"text": {"type": "string", "description": hidden}}}
    capability = Capability(name="write", kind=Kind.TOOL, title=hidden, description=hidden, input_schema=schema)
    async with small_hub({"scripted": ScriptedAdapter(agent)}) as (hub, address):
        card = AgentCard(name="W\u200br", instructions=hidden, capabilities=(capability,))
        await hub.add("writer", "scripted", SCRIPTED, card)
        async with client(f"{address}/agents/writer/mcp", "auto") as connected:
            (tool,) = (await connected.list_tools()).tools
            assert connected.instructions == "Writes."
            assert (tool.title, tool.description) == ("Writes.", "Writes.")
            assert tool.input_schema["properties"]["text"]["description"] == "Writes."


async def test_tools_change_with_the_agent_and_go_with_it() -> None:
    _, card, adapter = writer()
    person = Person()
    async with small_hub({"scripted": adapter}) as (hub, address):
        await hub.add("writer", "scripted", SCRIPTED, card)
        url = f"{address}/agents/writer/mcp"
        async with client(url, "auto") as modern, client(url, "legacy", person=person) as legacy:
            async with modern.listen(tools_list_changed=True) as subscription:
                fewer = AgentCard(name="Writer", capabilities=card.capabilities[:1])
                await hub.add("writer", "scripted", SCRIPTED, fewer)
                with anyio.fail_after(10):
                    assert type(await anext(aiter(subscription))).__name__ == "ToolsListChanged"
                assert [tool.name for tool in (await modern.list_tools()).tools] == ["write"]
            assert [tool.name for tool in (await legacy.list_tools()).tools] == ["write"]
            hub.remove("writer")
            with pytest.raises(MCPError):
                await modern.list_tools()


async def test_a_sealed_state_belongs_to_whoever_was_asked() -> None:
    agent = ScriptedAgent("asker").on(
        "book", InputRequired(question=(TextPart(text="Which city?"),)), Completed(parts=(TextPart(text="booked"),))
    )
    adapter = ScriptedAdapter(agent)
    endpoint = Endpoint(binding=Binding.LOCAL, url="scripted:asker")
    async with small_hub({"scripted": adapter}) as (hub, address):
        await hub.add("asker", "scripted", endpoint, await adapter.describe(endpoint))
        url, person = f"{address}/agents/asker/mcp", Person()
        async with (
            client(url, "auto", person=person, name="ann") as ann,
            client(url, "auto", person=person, name="bob") as bob,
        ):
            rounds = await ann.session.call_tool("book", {"message": "x"}, allow_input_required=True)
            assert isinstance(rounds, t.InputRequiredResult)
            for who, session in (("bob", bob.session), ("ann", ann.session)):
                answers: Any = {"question": t.ElicitResult(action="accept", content={"answer": "Rome"})}
                again = session.call_tool(
                    "book", {"message": "x"}, request_state=rounds.request_state, input_responses=answers
                )
                if who == "bob":
                    with pytest.raises(MCPError, match="Invalid or expired requestState"):
                        await again
                else:
                    assert "booked" in text(await again)


@pytest.mark.parametrize("era", ERAS)
async def test_sessions_that_crashed_are_followed_by_others(era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = StreamableHTTPSessionManager.run
    crashes = iter((True, False))

    @asynccontextmanager
    async def crashing(manager: StreamableHTTPSessionManager) -> AsyncGenerator[None]:
        if next(crashes):
            raise RuntimeError("out of luck")
        async with run(manager):
            yield

    monkeypatch.setattr(StreamableHTTPSessionManager, "run", crashing)
    _, card, adapter = writer()
    async with small_hub({"scripted": adapter}) as (hub, address):
        await hub.add("writer", "scripted", SCRIPTED, card)
        url = f"{address}/agents/writer/mcp"
        async with httpx2.AsyncClient() as http:
            crashed = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert (crashed.status_code, crashed.json()["error"]["data"][0]["reason"]) == (502, "AGENT_UNAVAILABLE")
        async with client(url, era) as connected:
            assert len((await connected.list_tools()).tools) == 3


async def test_a_body_may_be_as_large_as_the_hub_takes(tmp_path: Path) -> None:
    server = Server(max_body_bytes=20 * 1024 * 1024)
    async with whole_hub(tmp_path, settings={"server": server}) as hub:
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x" * 18 * 1024 * 1024}}
        for path in ("/mcp", "/agents/clerk/mcp"):
            answered = await hub.client.post(path, json=body)
            assert answered.status_code not in (413, 500), path
