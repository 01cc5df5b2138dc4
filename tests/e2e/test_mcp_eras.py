"""The era matrix: every feature of MCP through the hub, for every pair of eras, with servers on HTTP and on stdio.

One hub and one set of servers for the whole table. Where a pair cannot carry something, the cell holds the hub to the
answer that `docs/mcp.md` gives instead.
"""

import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx2
import mcp_types as t
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from interhub.hub.auth import key_hash
from interhub.hub.settings import Auth
from tests.support.mcp_caller import LENDS, Caller, Refused, caller
from tests.support.mcp_era_server import CAPABILITIES, CONTENTS, QUESTIONS, RESOURCES, TEMPLATES, TOOLS
from tests.support.mcp_servers import ROOT, over_http
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio

PEER = ROOT / "tests" / "support" / "mcp_era_server.py"
EVE = "ih_" + "e" * 43
ERAS = ("modern", "legacy")
TRANSPORTS = ("http", "stdio")
PAIRS = tuple(product(ERAS, ERAS, TRANSPORTS))
"""Era of the caller, era of the server, and how the server is reached."""
CALL = "tools/call"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One pair, and a caller of it."""

    modern: bool
    """Of the caller."""
    peer_modern: bool
    stdio: bool
    url: str
    key: str
    ada: Caller
    eve: Caller
    """Somebody else's client, of the same era."""

    @property
    def both_modern(self) -> bool:
        return self.modern and self.peer_modern

    async def await_happened(self, what: str) -> None:
        """Wait until the server has noticed something, on the session that the caller's requests go on."""
        seen = await self.ada.call("seen", {"until": what})
        assert what in "\n".join(seen["structuredContent"]["happened"])


Table = dict[tuple[str, str, str], Side]


@pytest.fixture(scope="module")
async def table(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Table]:
    async with AsyncExitStack() as stack:
        folder: Path = tmp_path_factory.mktemp("eras")
        auth = Auth(key_hashes=(key_hash(EVE),))
        hub = await stack.enter_async_context(whole_hub(folder, auth=auth))
        for era, transport in product(ERAS, TRANSPORTS):
            endpoint: dict[str, Any] = {"binding": "MCP-STDIO", "command": [sys.executable, str(PEER), era]}
            if transport == "http":
                endpoint = {"binding": "MCP-HTTP", "url": await stack.enter_async_context(over_http(PEER, era))}
            body = {"kind": "endpoint", "adapter": "mcp", "id": f"{era}-{transport}", "endpoint": endpoint}
            added = await hub.client.post("/api/agents", json=body)
            assert added.status_code == 201, added.text
        sides: Table = {}
        for pair in PAIRS:
            mine, theirs, transport = pair
            url = f"{hub.url}/agents/{theirs}-{transport}/mcp"
            ada = await stack.enter_async_context(caller(url, modern=mine == "modern", key=hub.key))
            eve = await stack.enter_async_context(caller(url, modern=mine == "modern", key=EVE))
            sides[pair] = Side(
                modern=mine == "modern",
                peer_modern=theirs == "modern",
                stdio=transport == "stdio",
                url=url,
                key=hub.key,
                ada=ada,
                eve=eve,
            )
        yield sides


async def refused(awaiting: Awaitable[Any]) -> Refused:
    with pytest.raises(Refused) as raised:
        await awaiting
    return raised.value


# What a server says of itself


async def greeting(side: Side) -> None:
    """Who a server is, what it offers and what no model knows: all of it comes through."""
    told = side.ada.greeting
    info = told["_meta"]["io.modelcontextprotocol/serverInfo"] if side.modern else told["serverInfo"]
    assert (info["name"], info["version"]) == ("peer", "1")
    assert told["instructions"] == "Be kind."
    assert told["capabilities"]["experimental"] == CAPABILITIES["experimental"]
    assert {"tools", "prompts", "resources", "completions", "logging"} <= told["capabilities"].keys()
    if side.modern:
        assert told["supportedVersions"][0] == "2026-07-28"
    else:
        assert told["protocolVersion"] == "2025-11-25"
    if side.modern == side.peer_modern:
        assert told["x-hello"] == {"kept": None}


async def lists(side: Side) -> None:
    """Lists come page by page as the server cuts them, every definition whole, with cache hints in the newer era."""
    first = await side.ada.request("tools/list")
    rest = await side.ada.request("tools/list", {"cursor": first["nextCursor"]})
    assert [*first["tools"], *rest["tools"]] == TOOLS
    assert first["x-list"] == {"kept": None}
    assert "nextCursor" not in rest
    if side.modern:
        hints = (5000, "public") if side.peer_modern else (0, "private")
        assert (first["ttlMs"], first["cacheScope"]) == hints
        assert first["resultType"] == "complete"
    else:
        assert not {"ttlMs", "cacheScope", "resultType"} & first.keys()


# Tools


async def call(side: Side) -> None:
    """A call's parameters, `_meta` and unknown fields reach the server, and its result comes back whole."""
    meta = {"example.com/mine": {"kept": [None]}}
    params = {"name": "echo", "arguments": {"a": [None, 1.5, "é"]}, "x-param": {"kept": None}, "_meta": meta}
    result = await side.ada.request(CALL, params)
    assert result["content"] == [{"type": "text", "text": "echoed"}]
    assert result["isError"] is False
    assert result["x-result"] == {"kept": [None]}
    assert result["_meta"]["example.com/said"] == {"kept": [None]}
    assert result["structuredContent"]["none"] is None
    got = result["structuredContent"]["params"]
    assert (got["name"], got["arguments"], got["x-param"]) == ("echo", params["arguments"], params["x-param"])
    assert got["_meta"]["example.com/mine"] == {"kept": [None]}
    envelope = {key for key in got["_meta"] if key.startswith("io.modelcontextprotocol/")}
    assert bool(envelope) == side.peer_modern
    if side.peer_modern:
        assert got["_meta"]["io.modelcontextprotocol/clientInfo"]["name"] == "raw"
        assert got["_meta"]["io.modelcontextprotocol/clientCapabilities"] == LENDS
    assert ("resultType" in result) == side.modern
    assert side.key not in json.dumps(result), "a caller's credentials stay at the hub"


async def sdk_client(side: Side) -> None:
    """The SDK's own client, pinned to the era, does the same."""
    mode = "2026-07-28" if side.modern else "legacy"
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {side.key}"}, timeout=30) as http,
        Client(
            streamable_http_client(side.url, http_client=http),
            mode=mode,
            cache=None,
        ) as client,
    ):
        typed = await client.call_tool("typed", {"n": 21})
        assert typed.structured_content == {"twice": 42}
        prompt = await client.get_prompt("greet", {"who": "Ada"})
        assert isinstance(prompt.messages[0].content, t.TextContent)


async def structured(side: Side) -> None:
    """Structured output comes with its text; what the tool promised is listed."""
    result = await side.ada.call("typed", {"n": 4})
    assert result["structuredContent"] == {"twice": 8}
    assert result["content"] == [{"type": "text", "text": "typed"}]


async def content_types(side: Side) -> None:
    """Every type of content, with annotations and unknown fields, and a type of the future."""
    assert (await side.ada.call("contents"))["content"] == CONTENTS
    assert (await side.ada.call("hologram"))["content"] == [{"type": "hologram", "depth": {"kept": None}}]


async def tool_failure(side: Side) -> None:
    """A tool that fails is a result; it says so in its own words."""
    result = await side.ada.call("fails")
    assert result["isError"] is True
    assert result["content"] == [{"type": "text", "text": "the disk is full"}]


async def protocol_errors(side: Side) -> None:
    """A server's error keeps its code, its words and its data."""
    error = await refused(side.ada.call("refuses"))
    assert (error.code, error.message, error.data) == (-31999, "not on Sundays", {"x-data": {"kept": [None]}})
    unknown = await refused(side.ada.call("no-such-tool"))
    assert (unknown.code, unknown.message) == (-32602, "unknown tool 'no-such-tool'")
    method = await refused(side.ada.request("no/such"))
    assert method.code == -32601


async def param_headers(side: Side) -> None:
    """Arguments that belong in headers are there where the server has such headers, whoever the caller is."""
    headers = {"Mcp-Param-Region": "eu"} if side.modern else {}
    params = {"name": "routed", "arguments": {"region": "eu"}}
    result = await side.ada.request(CALL, params, headers=headers)
    shown = "eu" if side.peer_modern and not side.stdio else None
    assert result["structuredContent"] == {"region": "eu", "header": shown}
    if side.modern:
        wrong = await refused(side.ada.request(CALL, params, headers={"Mcp-Param-Region": "us"}))
        assert (wrong.status, wrong.code) == (400, -32020)


# Prompts, resources, completion


async def prompts(side: Side) -> None:
    """Prompts are listed and got, with what no model knows; one that is not there says so."""
    listed = await side.ada.request("prompts/list")
    assert listed["prompts"][0]["x-prompt"] == 1
    got = await side.ada.request("prompts/get", {"name": "greet", "arguments": {"who": "Ada"}})
    content = {"type": "text", "text": "Hello Ada"}
    assert got["messages"] == [{"role": "user", "content": content, "x-message": 1}]
    missing = await refused(side.ada.request("prompts/get", {"name": "nope"}))
    assert (missing.code, missing.message, missing.data) == (-32602, "no prompt nope", {"x-data": [1]})


async def resources(side: Side) -> None:
    """Resources and templates are listed and read, as text and as bytes; one that is not there says so."""
    assert (await side.ada.request("resources/list"))["resources"] == RESOURCES
    templates = await side.ada.request("resources/templates/list")
    assert templates["resourceTemplates"] == TEMPLATES
    read = await side.ada.request("resources/read", {"uri": "peer://text"})
    assert read["contents"][0] == {
        "uri": "peer://text", "text": "the text", "mimeType": "text/plain", "x-content": {"kept": None}
    }  # fmt: skip
    of = await side.ada.request("resources/read", {"uri": "peer://of/7"})
    assert of["contents"][0]["blob"]
    missing = await refused(side.ada.request("resources/read", {"uri": "peer://nowhere"}))
    # Each era has its own code for it; the server's own is kept.
    assert (missing.code, missing.data) == (-32602 if side.peer_modern else -32002, {"uri": "peer://nowhere"})


async def completion(side: Side) -> None:
    """Arguments are completed."""
    params = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": "Ad"}}
    result = await side.ada.request("completion/complete", params)
    values = {"values": ["Ada", "ref/prompt"], "total": 2, "hasMore": False, "x-completion": 1}
    assert result["completion"] == values


# While a call lasts


async def progress(side: Side) -> None:
    """Progress comes under the caller's own token, in order, with what no model knows; unasked there is none."""
    token, before = f"mine-{uuid4()}", len(side.ada.notes)
    await side.ada.call("steps", meta={"progressToken": token})
    told = [note for method, note in side.ada.notes[before:] if method == "notifications/progress"]
    assert [(note["progressToken"], note["progress"], note["message"], note["x-note"]) for note in told] == [
        (token, 1, "step 1", 1),
        (token, 2, "step 2", 1),
    ]
    await side.ada.call("steps")
    assert len([method for method, _ in side.ada.notes[before:] if method == "notifications/progress"]) == 2


async def logging(side: Side) -> None:
    """What a server logs in a call reaches the caller of that call, and nobody else."""
    if not side.modern:
        await side.ada.request("logging/setLevel", {"level": "debug"})
        await side.eve.request("logging/setLevel", {"level": "debug"})
    marks = {name: f"{name}-{uuid4()}" for name in ("ada", "eve")}
    meta = {"io.modelcontextprotocol/logLevel": "debug"} if side.modern else {}
    eve = side.eve
    starts = len(side.ada.notes), len(eve.notes)
    # On stdio nothing says which call a line belongs to: where two principals share a session (all but both older),
    # calls side by side are told none.
    shared = side.stdio and (side.modern or side.peer_modern)
    if shared:
        await side.ada.call("logs", {"mark": marks["ada"]}, meta=meta)
        await eve.call("logs", {"mark": marks["eve"]}, meta=meta)
    else:
        async with anyio.create_task_group() as tasks:
            for who, mark in ((side.ada, marks["ada"]), (eve, marks["eve"])):
                tasks.start_soon(partial(who.call, "logs", {"mark": mark}, meta=meta))
    for who, name, start in ((side.ada, "ada", starts[0]), (eve, "eve", starts[1])):
        lines = [note["data"]["line"] for method, note in who.notes[start:] if method == "notifications/message"]
        assert lines == [f"{marks[name]} first", f"{marks[name]} second"]
    if side.modern:
        before = len(side.ada.notes)
        await side.ada.call("logs", {"mark": "unasked"})
        assert [method for method, _ in side.ada.notes[before:]] == [], "in the newer era each request asks for its log"


async def cancellation(side: Side) -> None:
    """A call that the caller gives up is cancelled at the server, in the way of either era."""
    mark, number = f"call-{uuid4()}", f"n-{uuid4()}"
    params = {"name": "slow", "arguments": {"mark": mark}, "_meta": {"progressToken": mark}}
    async with anyio.create_task_group() as tasks:

        async def slow() -> None:
            try:
                await side.ada.request(CALL, params, number=number)
            except Refused:
                assert not side.modern  # a cancelled request of the older era may be answered with an error

        tasks.start_soon(slow)
        await side.ada.hear("notifications/progress", matching=lambda note: note["progressToken"] == mark)
        if not side.modern:
            await side.ada.notify("notifications/cancelled", {"requestId": number, "reason": "enough"})
            await side.await_happened(f"cancelled {mark}")
        tasks.cancel_scope.cancel()
    await side.await_happened(f"cancelled {mark}")


# What changes


async def list_changes(side: Side) -> None:
    """A server's word that a list changed reaches who listens: each of the three lists."""
    before = len(side.ada.notes)
    listening = await side.ada.listen(toolsListChanged=True, promptsListChanged=True, resourcesListChanged=True)
    await _awaited_listener(side)
    for what in ("tools", "prompts", "resources"):
        await side.ada.call("change", {"what": what})
        await side.ada.hear(f"notifications/{what}/list_changed", after=before)
    listening.cancel()


async def resource_updates(side: Side) -> None:
    """Who subscribed to a resource hears that it changed, and not of others; and no more once that has ended."""
    uri, other, before = f"peer://of/{uuid4()}", "peer://text", len(side.ada.notes)
    listening = await side.ada.listen(uris=(uri,))
    if not side.peer_modern:
        await side.await_happened(f"resources/subscribe {uri}")
    for changed in (other, uri):
        await side.ada.call("change", {"what": "resource", "uri": changed})
    await side.ada.hear("notifications/resources/updated", after=before)
    updated = [note["uri"] for method, note in side.ada.notes[before:] if method == "notifications/resources/updated"]
    assert set(updated) == {uri}
    listening.cancel()
    if not side.modern:
        await side.ada.request("resources/unsubscribe", {"uri": uri})
    if not side.peer_modern:
        await side.await_happened(f"resources/unsubscribe {uri}")
    if side.both_modern:
        await side.await_happened("left resourceSubscriptions")


async def _awaited_listener(side: Side) -> None:
    """Wait until a modern server has the stream that a caller's subscription became."""
    if side.peer_modern:
        await side.await_happened("listening")


# What a server asks


async def form(side: Side) -> None:
    """A question to a person is answered, accepted and declined; the form comes as the server wrote it."""
    before = len(side.ada.asked)
    result = await side.ada.call("ask", {"names": ["form"]})
    assert result["structuredContent"]["answers"] == {"form": side.ada.answers["form"]}
    assert side.ada.asked[before:] == [("elicitation/create", QUESTIONS["form"]["params"])]
    accepted = side.ada.answers["form"]
    side.ada.answers["form"] = {"action": "decline"}
    try:
        declined = await side.ada.call("ask", {"names": ["form"]})
    finally:
        side.ada.answers["form"] = accepted
    assert declined["structuredContent"]["answers"] == {"form": {"action": "decline"}}


async def page(side: Side) -> None:
    """A page to open reaches the caller's browser, and in the older era its server's word that it was done."""
    before, told = len(side.ada.asked), len(side.ada.notes)
    result = await side.ada.call("ask", {"names": ["page"]})
    assert result["structuredContent"]["answers"] == {"page": {"action": "accept"}}
    assert side.ada.asked[before:] == [("elicitation/create", QUESTIONS["page"]["params"])]
    if not side.peer_modern:
        done = await side.ada.hear("notifications/elicitation/complete", after=told)
        assert done["elicitationId"] == "page-1"


async def sampling(side: Side) -> None:
    """A server borrows the caller's model, whichever era either is of."""
    before = len(side.ada.asked)
    result = await side.ada.call("ask", {"names": ["model"]})
    assert result["structuredContent"]["answers"] == {"model": side.ada.answers["sampling/createMessage"]}
    assert side.ada.asked[before:] == [("sampling/createMessage", QUESTIONS["model"]["params"])]


async def roots(side: Side) -> None:
    """A server asks which folders there are."""
    result = await side.ada.call("ask", {"names": ["folders"]})
    assert result["structuredContent"]["answers"] == {"folders": side.ada.answers["roots/list"]}
    if not side.modern:
        await side.ada.notify("notifications/roots/list_changed")
        if not side.peer_modern:
            await side.await_happened("roots changed")


async def several(side: Side) -> None:
    """A server that asks several things at once gets an answer to each."""
    before = len(side.ada.asked)
    names = ["form", "page", "model", "folders"]
    result = await side.ada.call("ask", {"names": names})
    answers = result["structuredContent"]["answers"]
    assert answers == {
        "form": side.ada.answers["form"],
        "page": {"action": "accept"},
        "model": side.ada.answers["sampling/createMessage"],
        "folders": side.ada.answers["roots/list"],
    }
    assert len(side.ada.asked) == before + 4


async def beside(side: Side) -> None:
    """A question that does not say which request it is for, as many servers ask them, reaches who made the only one."""
    assert (await side.ada.call("typed", {"n": 1}))["structuredContent"] == {"twice": 2}  # the session is open
    before = len(side.ada.asked)
    result = await side.ada.call("ask", {"names": ["form", "folders"], "beside": True})
    folders = side.ada.answers["roots/list"]
    assert result["structuredContent"]["answers"] == {"form": side.ada.answers["form"], "folders": folders}
    assert len(side.ada.asked) == before + 2


async def strangers(side: Side) -> None:
    """Such a question is put to nobody while others are served on the same session: it may be theirs."""
    mark, eve, before = f"call-{uuid4()}", side.eve, len(side.eve.asked)
    alone = not side.modern and not side.peer_modern  # each has a session, and on stdio a process, of her own
    result: dict[str, Any] = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(eve.call, "slow", {"mark": mark})
        await (eve if alone else side.ada).call("seen", {"until": f"began {mark}"})
        result = await side.ada.call("ask", {"names": ["form"], "beside": True})
        tasks.cancel_scope.cancel()
    answer = result["structuredContent"]["answers"]["form"]
    if side.modern and not side.peer_modern:
        assert "not offered" in answer["error"]
    else:
        assert answer == side.ada.answers["form"]
    assert eve.asked[before:] == []


async def unawaited(side: Side) -> None:
    """A call that ends without the answer to what was asked in it has its result; the answer is taken all the same."""
    mark = f"question-{uuid4()}"
    params = {"name": "ask", "arguments": {"names": ["folders"], "unawaited": mark}}
    if side.peer_modern:
        result = await side.ada.use(CALL, params)
        assert result["structuredContent"]["answers"] == {"folders": side.ada.answers["roots/list"]}
        return
    if side.modern:
        first = await side.ada.request(CALL, params)
        await side.ada.call("note", {"what": f"go on without {mark}"})
        result = await side.ada.use(CALL, side.ada.answered(params, first))
    else:
        result = {}
        async with anyio.create_task_group() as tasks:

            async def go_on() -> None:
                await side.await_happened(f"answered {mark}")
                await side.ada.call("note", {"what": f"go on without {mark}"})

            tasks.start_soon(go_on)
            result = await side.ada.use(CALL, params)
    assert result["content"] == [{"type": "text", "text": "gone on"}]
    await side.await_happened(f"answered {mark}")


async def asked_in_a_list(side: Side) -> None:
    """A server that asks while it lists is answered by callers of its own era; the newer one has no way to ask then."""
    before = len(side.ada.asked)
    listed = await side.ada.request("tools/list", {"x-ask": True})
    assert listed["tools"] == TOOLS[:4]
    if side.peer_modern:
        assert listed["x-asked"] == {}
    elif side.modern:
        assert "not offered" in listed["x-asked"]["folders"]["error"]
        assert len(side.ada.asked) == before
    else:
        assert listed["x-asked"] == {"folders": side.ada.answers["roots/list"]}


async def lent_nothing(side: Side) -> None:
    """A server is not told that a caller lends what it does not: it says so, instead of asking in vain."""
    async with caller(side.url, modern=side.modern, key=side.key, lends={}) as plain:
        sampling = await plain.call("ask", {"names": ["model", "folders"]})
        assert sampling["isError"] is True
        assert sampling["content"][0]["text"] == "the client lends no roots, sampling"
        asked = await plain.call("ask", {"names": ["form"]})
        if side.modern and not side.peer_modern:
            # The session is shared, and those of others can be asked: the question itself is refused.
            assert "not offered" in asked["structuredContent"]["answers"]["form"]["error"]
        else:
            assert asked["content"][0]["text"] == "the client lends no elicitation"
    assert plain.asked == []


async def request_state(side: Side) -> None:
    """What a caller keeps between two rounds is sealed: another's, another call's or a changed one is refused."""
    params = {"name": "ask", "arguments": {"names": ["form"]}}
    if not side.modern:
        # Nothing is kept by callers of the older era: a server's state goes back to it without them.
        result = await side.ada.call("ask", {"names": ["form"]})
        assert result["structuredContent"]["answers"]["form"]["action"] == "accept"
        assert side.ada.states == []
        return
    first = await side.ada.request(CALL, params)
    again = side.ada.answered(params, first)
    state: str = first["requestState"]
    assert "the peer's own" not in state
    middle = len(state) // 2
    changed = state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]
    eve = side.eve
    others = {
        "another principal": (eve, again),
        "another tool": (side.ada, {**again, "name": "echo"}),
        "other arguments": (side.ada, {**again, "arguments": {"names": ["form", "page"]}}),
        "a changed state": (side.ada, {**again, "requestState": changed}),
        "the server's own": (side.ada, {**again, "requestState": "the peer's own"}),
        "no text": (side.ada, {**again, "requestState": 7}),
    }
    for why, (who, request) in others.items():
        error = await refused(who.request(CALL, request))
        assert error.code == -32602, why
    result = await side.ada.request(CALL, again)
    assert result["structuredContent"]["answers"]["form"]["action"] == "accept"


# Sessions


async def sessions(side: Side) -> None:
    """A server that forgot its sessions is greeted anew, and neither caller notices."""
    eve = side.eve
    assert (await eve.call("typed", {"n": 1}))["structuredContent"] == {"twice": 2}
    await side.ada.call("forget")
    assert (await side.ada.call("typed", {"n": 2}))["structuredContent"] == {"twice": 4}
    assert (await eve.call("typed", {"n": 3}))["structuredContent"] == {"twice": 6}
    assert (await side.ada.call("ask", {"names": ["model"]}))["structuredContent"]["answers"]["model"]
    listening = await side.ada.listen(toolsListChanged=True)
    before = len(side.ada.notes)
    with anyio.fail_after(10):
        while not any(method == "notifications/tools/list_changed" for method, _ in side.ada.notes[before:]):
            await side.ada.call("change", {"what": "tools"})
    listening.cancel()


async def ping(side: Side) -> None:
    """A ping is answered in the era that has it, in both directions; the newer one has none."""
    if side.modern:
        assert (await refused(side.ada.request("ping"))).code == -32601
    else:
        assert await side.ada.request("ping") == {}
    assert (await side.ada.call("ping"))["content"] == [{"type": "text", "text": "pong"}]


FEATURES = (
    greeting, lists, call, sdk_client, structured, content_types, tool_failure, protocol_errors, param_headers, prompts,
    resources, completion, progress, logging, cancellation, list_changes, resource_updates, form, page, sampling, roots,
    several, beside, strangers, unawaited, asked_in_a_list, lent_nothing, request_state, sessions, ping,
)  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.__name__)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "{}-to-{}-on-{}".format(*pair))
async def test_a_pair_of_eras_carries_a_feature(
    table: Table, pair: tuple[str, str, str], feature: Callable[[Side], Awaitable[None]]
) -> None:
    with anyio.fail_after(30):
        await feature(table[pair])
