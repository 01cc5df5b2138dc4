"""The lists of the hub: profiles, pages, their cost to a client, and what strangers' texts may do to them."""

import math
from typing import Any

import anyio
import httpx
import orjson
import pytest
from mcp import MCPError

from interhub.adapters import Principal
from interhub.adapters.testing import ScriptedAgent, answer
from interhub.agent_cards import Capability, JsonObject, Kind
from interhub.hub.faces.mcp.profiles import Profile, Profiles
from tests.support.mcp_site import OWN, add, client, fields, mcp_site, text

pytestmark = pytest.mark.anyio

ADMIN = Principal(subject="admin")
ERAS = ["2026-07-28", "legacy"]
MODERN = "2026-07-28"
CHARS_PER_TOKEN = 3.5
"""Of JSON with English in it; tokenizers of today's models get 3.7 to 4.5 out of one. So the estimate is high."""


def tool(name: str, **more: Any) -> Capability:
    return Capability(name=name, kind=Kind.TOOL, input_schema={"type": "object"}, **more)


def toolbox(name: str, *tools: Capability) -> ScriptedAgent:
    agent = ScriptedAgent(name, capabilities=tools)
    for each in tools:
        agent.on(each.name, answer(f"{name} did {each.name}"), kind=each.kind)
    return agent


def desk() -> tuple[ScriptedAgent, ...]:
    return (
        toolbox("git-local", tool("log"), tool("push")),
        toolbox("git-remote", tool("clone")),
        toolbox("mail", tool("read", description="Read the letters"), tool("send", description="Send a letter")),
    )


PROFILES = Profiles(
    whole=Profile(mode="all"),
    named={
        "code": Profile(name="code", mode="all", agents=("git-*",)),
        "reader": Profile(name="reader", mode="all", capabilities=("log", "mail/read")),
        "quiet": Profile(name="quiet", mode="search", agents=("mail",)),
    },
    by_subject={"bob": "quiet"},
)


async def listed(url: str, mode: str) -> list[str]:
    async with client(url, mode) as hub:
        return [each.name for each in (await hub.list_tools()).tools]


def request(method: str, params: dict[str, Any] | None = None, *, number: int = 1) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**(params or {}), "_meta": meta}}


async def post(
    http: httpx.AsyncClient, url: str, method: str, params: dict[str, Any] | None = None, **headers: str
) -> httpx.Response:
    sent = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
        **headers,
    }
    return await http.post(url, content=orjson.dumps(request(method, params)), headers=sent)


# Profiles


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_is_shown_the_profile_that_it_names_in_its_url(mode: str) -> None:
    async with mcp_site(*desk(), profiles=PROFILES) as site:
        everything = ["git-local__log", "git-local__push", "git-remote__clone", "mail__read", "mail__send"]
        assert await listed(site.url, mode) == [*OWN, *everything]
        assert await listed(f"{site.url}?profile=code", mode) == [*OWN, *everything[:3]]
        assert await listed(f"{site.url}?profile=reader", mode) == [*OWN, "git-local__log", "mail__read"]
        assert await listed(f"{site.url}?profile=quiet", mode) == OWN


async def test_the_url_comes_before_the_header_and_that_before_the_callers_own() -> None:
    async with mcp_site(*desk(), profiles=PROFILES) as site, httpx.AsyncClient() as http:

        async def number(url: str, **headers: str) -> int:
            answered = await post(http, url, "tools/list", None, **headers)
            return len(answered.json()["result"]["tools"]) - len(OWN)

        bob = {"Authorization": "Bearer bob"}
        assert await number(site.url) == 5
        assert await number(site.url, **bob) == 0
        assert await number(site.url, **bob, **{"Interhub-Profile": "reader"}) == 2
        assert await number(f"{site.url}?profile=code", **bob, **{"Interhub-Profile": "reader"}) == 3


async def test_a_profile_that_there_is_not_is_refused_with_the_nearest() -> None:
    async with mcp_site(*desk(), profiles=PROFILES) as site, httpx.AsyncClient() as http:
        answered = await post(http, f"{site.url}?profile=raeder", "tools/list")
        assert answered.status_code == 400
        assert "no profile is called 'raeder'; did you mean reader?" in answered.text
        empty = await post(http, f"{site.url}?profile=", "tools/list")
        assert "there are: code, quiet, reader" in empty.text


@pytest.mark.parametrize("mode", ERAS)
async def test_what_is_not_in_the_profile_is_not_found_or_called_by_its_clients(mode: str) -> None:
    async with mcp_site(*desk(), profiles=PROFILES) as site, client(f"{site.url}?profile=reader", mode) as hub:
        assert text(await hub.call_tool("mail__read", {})) == "mail did read"
        with pytest.raises(MCPError, match="no tool is called 'mail__send' in the profile reader"):
            await hub.call_tool("mail__send", {})
        found = fields(await hub.call_tool("find", {"need": "send a letter", "explain": True}))
        assert {(each["agent"], each["capability"]) for each in found["matches"]} <= {
            ("mail", "read"),
            ("git-local", "log"),
        }
        assert text(await hub.call_tool("call", {"agent": "mail", "capability": "read"})) == "mail did read"
        refused = await hub.call_tool("call", {"agent": "mail", "capability": "send"})
        assert refused.is_error
        assert "nothing called 'send'" in text(refused)
        hidden = await hub.call_tool("call", {"agent": "git-remote", "capability": "clone"})
        assert hidden.is_error
        assert "git-remote" in text(hidden)


# What a list costs


@pytest.mark.parametrize("mode", ERAS)
async def test_in_search_mode_a_client_reads_at_most_1500_tokens_of_definitions(mode: str) -> None:
    many = toolbox("many", *(tool(f"do{number}") for number in range(200)))
    async with mcp_site(many, catalogue="search") as site, client(site.url, mode) as hub:
        whole = (await hub.list_tools()).model_dump(by_alias=True, exclude_none=True, mode="json")
    assert [each["name"] for each in whole["tools"]] == OWN
    assert math.ceil(len(orjson.dumps(whole).decode()) / CHARS_PER_TOKEN) <= 1500


async def test_ten_thousand_tools_of_two_hundred_agents_come_whole_in_pages_with_hints() -> None:
    agents = [
        toolbox(f"agent-{n:03}", *(tool(f"do{each:02}", description="Does it") for each in range(50)))
        for n in range(200)
    ]
    async with mcp_site(*agents, catalogue="all") as site, httpx.AsyncClient(timeout=30) as http:
        names: list[str] = []
        cursor: dict[str, Any] = {}
        pages = 0
        while True:
            result = (await post(http, site.url, "tools/list", cursor)).json()["result"]
            assert (result["cacheScope"], result["resultType"]) == ("private", "complete")
            assert result["ttlMs"] > 0
            assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "interhub"
            names += [each["name"] for each in result["tools"]]
            pages += 1
            if "nextCursor" not in result:
                break
            cursor = {"cursor": result["nextCursor"]}
        assert pages == 11
        assert names == [*OWN, *(f"agent-{n:03}__do{each:02}" for n in range(200) for each in range(50))]
        assert len(set(names)) == 10_007
        assert max(map(len, names)) <= 64
        again = await post(http, site.url, "tools/list")
        first = await post(http, site.url, "tools/list")
        assert again.content == first.content


@pytest.mark.parametrize("mode", ERAS)
async def test_a_cursor_goes_on_behind_its_name_whatever_came_or_went_meanwhile(mode: str) -> None:
    late = toolbox("aaa", tool("first"))
    boxes = [toolbox("box", *(tool(f"do{number:02}") for number in range(30))), toolbox("gone", tool("x"))]
    async with mcp_site(*boxes, late, catalogue="all", page_size=10) as site:
        await site.hub.remove_agent(ADMIN, "aaa")
        async with client(site.url, mode) as hub:
            page = await hub.list_tools()
            names = [each.name for each in page.tools]
            await add(site.hub, late)  # stands before what has been listed
            await site.hub.remove_agent(ADMIN, "gone")
            while page.next_cursor is not None:
                page = await hub.list_tools(cursor=page.next_cursor)
                names += [each.name for each in page.tools]
    assert names == [*OWN, *(f"box__do{number:02}" for number in range(30))]


# What strangers write


HIDDEN = "Add two numbers.\u200b\u202e\U000e0041\U000e0042 Really."


@pytest.mark.parametrize("mode", ERAS)
async def test_invisible_characters_do_not_reach_a_model(mode: str) -> None:
    schema: JsonObject = {
        "type": "object",
        "properties": {"a": {"type": "integer", "description": "first\u2066 number"}},
        "$comment": "\ue000",
        "maxProperties": 2**70,
    }
    sly = toolbox(
        "sly",
        Capability(name="add", kind=Kind.TOOL, title="A\u200ddd", description=HIDDEN, input_schema=schema),
        Capability(name="\u200badd", kind=Kind.TOOL, input_schema={"type": "object"}),
        Capability(name="plain", kind=Kind.TOOL, description="می‌خواهم 👩‍💻 ❤️ 1️⃣", input_schema={"type": "object"}),
    )
    async with mcp_site(sly, catalogue="all") as site, client(site.url, mode) as hub:
        tools = {each.name: each for each in (await hub.list_tools()).tools}
        added = tools["sly__add"]
        assert (added.title, added.description) == ("Add", "Add two numbers. Really.")
        assert added.input_schema["properties"]["a"]["description"] == "first number"
        assert added.input_schema["$comment"] == ""
        assert added.input_schema["maxProperties"] == 2**70
        assert tools["sly__plain"].description == "می‌خواهم 👩‍💻 ❤️ 1️⃣"
        assert all(name.isascii() for name in tools)
        found = fields(await hub.call_tool("find", {"need": "add two numbers"}))["matches"]
        (match,) = [each for each in found if each["capability"] == "add"]
        assert match["description"] == "Add two numbers. Really."
        assert any("description holds invisible characters (U+200B, U+202E, U+E0041" in w for w in match["warnings"])


async def test_nobody_claims_the_names_of_the_hub_or_of_another_agent() -> None:
    agents = [
        toolbox("a", tool("b__c"), tool("find"), tool("delegate")),
        toolbox("b", tool("c")),
        toolbox("call", tool("x"), tool("__b__c")),
        toolbox("a-b", tool("c"), tool("_c")),
    ]
    async with mcp_site(*agents, catalogue="all") as site, client(site.url, MODERN) as hub:
        names = [each.name for each in (await hub.list_tools()).tools]
        assert len(set(names)) == len(names)
        assert names[: len(OWN)] == OWN
        assert [name for name in names if name in OWN] == OWN
        for name in names[len(OWN) :]:
            owner = name.partition("__")[0]
            assert text(await hub.call_tool(name, {})).startswith(f"{owner} did ")


@pytest.mark.parametrize("mode", ERAS)
async def test_a_definition_that_no_client_could_read_hides_no_other(mode: str) -> None:
    broken = Capability(name="broken", kind=Kind.TOOL, input_schema={"type": "array"})
    huge = tool("huge", output_schema={"type": "object", "description": "x" * 300_000})
    wordy = tool("wordy", description="w" * 20_000)
    odd = toolbox("odd", broken, huge, tool("good"), wordy)
    async with mcp_site(odd, catalogue="all") as site, client(site.url, mode) as hub:
        tools = {each.name: each for each in (await hub.list_tools()).tools}
    assert "odd__good" in tools
    assert "odd__huge" not in tools
    assert len(tools["odd__wordy"].description or "") == 8000


async def test_a_list_is_another_one_as_soon_as_an_agent_is() -> None:
    calm, busy = toolbox("calm", tool("stay")), toolbox("busy", tool("before"))
    async with mcp_site(calm, busy, catalogue="all") as site, client(site.url, MODERN) as hub:
        with anyio.fail_after(10):
            before = {each.name for each in (await hub.list_tools()).tools}
            busy.on("after", answer("x"), kind=Kind.TOOL)
            await site.hub.refresh_agent(ADMIN, "busy")
            after = {each.name for each in (await hub.list_tools(cache_mode="bypass")).tools}
    assert before <= after
    assert after - before == {"busy__after"}


async def test_a_legacy_list_is_answered_within_the_callers_own_session_only() -> None:
    async with mcp_site(*desk(), profiles=PROFILES) as site, httpx.AsyncClient() as http:
        both = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        opening = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        opened = await http.post(site.url, json=opening, headers=both)
        session = {**both, "Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        await http.post(site.url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
        asking = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        first = await http.post(site.url, json=asking, headers=session)  # the list is written
        assert '"tools":[' in first.text
        answered = await http.post(site.url, json=asking, headers=session)
        assert answered.headers["content-type"] == "application/json"  # not the stream that the SDK's server sends
        result = answered.json()["result"]
        assert len(result["tools"]) == len(OWN) + 5
        assert result.keys() == {"tools"}
        stolen = await http.post(site.url, json=asking, headers={**session, "Authorization": "Bearer eve"})
        assert stolen.status_code == 404
