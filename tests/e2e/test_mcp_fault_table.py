"""The table of faults: servers and clients that misbehave, at both endpoints, on both ways and in both eras.

Whatever happens, who called is told what went wrong and where, the other agents answer meanwhile, and nothing of the
hub's own leaks. A server that hangs, which needs a hub of less patience, is in `test_mcp_hung_server.py`.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import anyio
import httpx
import pytest

from interhub.hub.auth import key_hash
from interhub.hub.faces.mcp.entrance import McpEntrance
from interhub.hub.settings import Auth, Catalogue, Limits
from tests.support.mcp_caller import Caller, Refused, caller
from tests.support.mcp_trouble import FLOOD, HUGE, TOOLS, Trouble, trouble
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio

ERAS = ("modern", "legacy")
ENDPOINTS = ("catalogue", "agent")
WAYS = ("past ASGI", "short", "long")
EVE = "ih_" + "e" * 43
CANARY = "canary-of-the-upstream"
CALL_TIMEOUT_S = 20.0

FAULTS = {
    "closes": ("broke off", "connection ended"),
    "resets": ("broke off",),
    "breaks_stream": ("connection ended", "broke off"),
    "restarts": ("connection ended",),
    "not_json": ("not JSON-RPC",),
    "half_json": ("not JSON-RPC",),
    "wrong_id": ("not ours", "not the response"),
    "web_page": ("a web page, not",),
    "no_type": ("application/x-unheard-of",),
    "no_result": ("no result that is an object", "not JSON-RPC"),
    "fails_500": ("HTTP 500",),
    "fails_503": ("HTTP 503",),
    "denies": ("HTTP 401; give it credentials",),
}
"""What the hub says of each fault: one of these."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tool is called: a server of one era behind one endpoint."""

    agent: str
    server: Trouble
    ada: Caller
    eve: Caller
    neighbour: Caller
    """Calls the same tool of a server that is well."""
    prefix: str

    async def call(self, tool: str, *, who: Caller | None = None, **more: Any) -> dict[str, Any]:
        return await (who or self.ada).request("tools/call", {"name": self.prefix + tool, "arguments": {}, **more})

    async def error(self, tool: str) -> str:
        """Call a tool that must fail, and return what the caller is told."""
        try:
            result = await self.call(tool)
        except Refused as refused:
            return f"{refused.message} {json.dumps(refused.data)}"
        assert result["isError"] is True, result
        return str(result["content"][0]["text"])

    async def others_are_well(self) -> None:
        with anyio.fail_after(5):
            result = await self.neighbour.request("tools/call", {"name": "well__works", "arguments": {}})
        assert result["content"][0]["text"] == "done"


Site = dict[tuple[str, str, str], Place]
"""By the eras of caller and server, and the endpoint."""


async def register(hub: WholeHub, agent_id: str, url: str) -> None:
    endpoint = {"binding": "MCP-HTTP", "url": url, "headers": {"Authorization": f"Bearer {CANARY}"}}
    body = {"kind": "endpoint", "adapter": "mcp", "id": agent_id, "endpoint": endpoint}
    added = await hub.client.post("/api/agents", json=body)
    assert added.status_code == 201, added.text


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    async with AsyncExitStack() as stack:
        auth = Auth(key_hashes=(key_hash(EVE),))
        settings = {"limits": Limits(call_timeout_s=CALL_TIMEOUT_S), "catalogue": Catalogue(mode="all")}
        hub = await stack.enter_async_context(
            whole_hub(tmp_path_factory.mktemp("faults"), auth=auth, settings=settings)
        )
        servers: dict[str, Trouble] = {}
        for era in (*ERAS, "well"):
            server, url = await stack.enter_async_context(trouble("modern" if era == "well" else era))
            servers[era] = server
            await register(hub, era, url)
        for era in ERAS:
            async with trouble(era) as (_, url):
                await register(hub, f"gone-{era}", url)
        neighbour = await stack.enter_async_context(caller(f"{hub.url}/mcp", modern=True, key=hub.key))
        places: Site = {}
        for mine, theirs, endpoint in product(ERAS, ERAS, ENDPOINTS):
            url = f"{hub.url}/mcp" if endpoint == "catalogue" else f"{hub.url}/agents/{theirs}/mcp"
            modern = mine == "modern"
            places[mine, theirs, endpoint] = Place(
                agent=theirs,
                server=servers[theirs],
                ada=await stack.enter_async_context(caller(url, modern=modern, key=hub.key)),
                eve=await stack.enter_async_context(caller(url, modern=modern, key=EVE)),
                neighbour=neighbour,
                prefix=f"{theirs}__" if endpoint == "catalogue" else "",
            )
        yield places
        for server in servers.values():
            assert server.secrets == {f"Bearer {CANARY}"}, "what callers show to the hub stays there"


@pytest.fixture(params=product(ERAS, ERAS, ENDPOINTS), ids=lambda at: "{}-to-{}-at-{}".format(*at))
def place(request: pytest.FixtureRequest, site: Site) -> Place:
    return site[request.param]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which way through the hub a call takes: one of the short ones, where it can, or the SDK's."""
    if request.param != "past ASGI":
        monkeypatch.setattr(McpEntrance, "short", _no_short_way)
    if request.param == "long":
        monkeypatch.setattr(McpEntrance, "__call__", _long_way)
    return str(request.param)


def _no_short_way(entrance: Any, *given: Any) -> None:
    return None


async def _long_way(entrance: Any, scope: Any, receive: Any, send: Any, caller: Any = None) -> None:
    await entrance._app(scope, receive, send)


def nothing_leaks(text: str) -> None:
    assert CANARY not in text
    assert "Traceback" not in text
    assert 'File "' not in text


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_a_server_is_told_and_stays_its_own(
    place: Place, way: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with anyio.fail_after(20):
        before = len(place.server.calls)
        told = await place.error(fault)
        assert any(words in told for words in FAULTS[fault]), told
        assert place.agent in told, "it says who"
        assert len(place.server.calls) == before + 1, "a call that failed is not made again"
        await place.others_are_well()
        assert (await place.call("works"))["content"][0]["text"] == "done", "and the next call goes on"
    nothing_leaks(told)
    nothing_leaks("".join(capsys.readouterr()))


async def test_a_server_that_refuses_connections_is_told_with_the_next_try(place: Place, way: str) -> None:
    gone = f"gone-{place.agent}"
    async with caller(
        place.ada.url.replace(f"/agents/{place.agent}/", f"/agents/{gone}/"),
        modern=place.ada.modern,
        key=place.ada.credentials["Authorization"].removeprefix("Bearer "),
        greet=silent if place.ada.modern or not place.prefix else Caller.open,
    ) as ada:
        there = replace(place, agent=gone, ada=ada, prefix=f"{gone}__" if place.prefix else "")
        if place.prefix or ada.modern:
            told = await there.error("works")
        else:
            with pytest.raises(Refused) as refused:
                await ada.open()
            told = refused.value.message
    assert "nothing answers at 127.0.0.1:" in told
    assert gone in told
    nothing_leaks(told)
    await place.others_are_well()


async def silent(ada: Caller) -> None:
    """Say no hello: who would answer is not there."""


async def test_20_mib_arrive_whole(place: Place, way: str) -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.others_are_well)
            result = await place.call("huge")
            assert len(str(result["content"][0]["text"])) == HUGE


async def test_content_of_a_type_of_the_future_is_passed_on(place: Place, way: str) -> None:
    result = await place.call("hologram")
    assert result.get("isError", False) is False
    assert "hologram" in json.dumps(result["content"])


async def test_a_flood_of_progress_ends_with_the_result(place: Place, way: str) -> None:
    before = len(place.ada.notes)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.others_are_well)
            result = await place.call("floods", _meta={"progressToken": "flood"})
            assert result["content"][0]["text"] == "done"
    steps = [note["progress"] for method, note in place.ada.notes[before:] if method == "notifications/progress"]
    assert steps == sorted(steps), "in order"
    assert 0 < len(steps) <= FLOOD


async def test_a_server_that_restarts_is_greeted_anew(place: Place, way: str) -> None:
    assert (await place.call("works"))["content"][0]["text"] == "done"
    await place.server.forget()
    with anyio.fail_after(10):
        assert (await place.call("works"))["content"][0]["text"] == "done"
        assert (await place.call("works", who=place.eve))["content"][0]["text"] == "done"


async def test_an_expired_session_is_renewed_unnoticed(place: Place, way: str) -> None:
    assert (await place.call("works"))["content"][0]["text"] == "done"
    place.server.sessions.clear()
    before = len(place.server.calls)
    with anyio.fail_after(10):
        assert (await place.call("works"))["content"][0]["text"] == "done"
        assert (await place.call("works", who=place.eve))["content"][0]["text"] == "done"
    assert place.server.calls[before:] == ["works", "works"]


async def test_a_caller_that_gives_up_ends_the_call_and_goes_on(place: Place, way: str) -> None:
    place.server.begun, place.server.hung_up = anyio.Event(), anyio.Event()
    number = f"slow-{place.prefix}{way}"
    with anyio.fail_after(15):
        async with anyio.create_task_group() as tasks:
            params: dict[str, Any] = {"name": f"{place.prefix}hangs", "arguments": {}}

            async def hang() -> None:
                try:
                    await place.ada.request("tools/call", params, number=number)
                except Refused:
                    assert not place.ada.modern  # what was cancelled may be answered with an error

            tasks.start_soon(hang)
            await place.server.begun.wait()
            await place.others_are_well()
            if place.ada.modern:
                tasks.cancel_scope.cancel()
            else:
                while not place.server.hung_up.is_set():
                    await place.ada.notify("notifications/cancelled", {"requestId": number})
                    with anyio.move_on_after(0.2):  # one that comes in the first moments of a call may not be heard
                        await place.server.hung_up.wait()
                tasks.cancel_scope.cancel()
        await place.server.hung_up.wait()
        assert (await place.call("works"))["content"][0]["text"] == "done"


async def test_a_server_that_changes_its_tools_is_listed_as_it_is_now(place: Place) -> None:
    before = len(place.ada.notes)
    listening = await place.ada.listen(toolsListChanged=True)
    try:
        with anyio.fail_after(20):
            await place.server.change(*TOOLS, "brand_new")
            await place.ada.hear("notifications/tools/list_changed", after=before)
            listed: list[str] = []
            while f"{place.prefix}brand_new" not in listed:
                listed = [tool["name"] for tool in (await place.ada.request("tools/list"))["tools"]]
            assert (await place.call("brand_new"))["content"][0]["text"] == "done"
    finally:
        listening.cancel()
        await place.server.change(*TOOLS)


async def test_another_principals_session_is_as_good_as_none(place: Place, way: str) -> None:
    stolen = Caller.__new__(Caller)
    stolen.__dict__.update(place.eve.__dict__)
    if place.ada.modern:
        # There are no sessions in the newer era; the id of one says nothing.
        result = await place.call("works", who=place.eve)
        assert result["content"][0]["text"] == "done"
        return
    errors: list[tuple[int, str]] = []
    for session in (place.ada.session_id, "0" * 32):
        stolen.session_id = session
        with pytest.raises(Refused) as refused:
            await place.call("works", who=stolen)
        errors.append((refused.value.status, refused.value.message))
    assert errors[0] == errors[1]
    assert errors[0][0] == 404


async def test_another_principals_request_state_is_refused(place: Place, way: str) -> None:
    if not (place.ada.modern and place.server.modern):
        result = await place.call("works")
        assert "requestState" not in result
        return
    params: dict[str, Any] = {"name": f"{place.prefix}asks", "arguments": {}}
    first = await place.ada.request("tools/call", params)
    again = place.ada.answered(params, first)
    before = len(place.server.calls)
    for who, request in ((place.eve, again), (place.ada, {**again, "requestState": again["requestState"][:-2] + "AA"})):
        with pytest.raises(Refused, match="Invalid or expired requestState"):
            await who.request("tools/call", request)
    assert len(place.server.calls) == before, "it did not get as far as the server"
    assert (await place.ada.request("tools/call", again))["content"][0]["text"] == "answered"


async def test_a_legacy_client_that_lost_its_stream_takes_up_another(site: Site) -> None:
    for theirs, endpoint in product(ERAS, ENDPOINTS):
        place = site["legacy", theirs, endpoint]
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": place.eve.session_id}
        async with httpx.AsyncClient(headers=place.eve.credentials) as http:
            with anyio.fail_after(10):
                await place.eve.drop_stream()
                while True:
                    async with http.stream("GET", place.eve.url, headers=headers) as response:
                        if response.status_code == 200:
                            break
                        await response.aread()
        assert (await place.call("works", who=place.eve))["content"][0]["text"] == "done"
