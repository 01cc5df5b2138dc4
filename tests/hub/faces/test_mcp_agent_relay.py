"""A relayed server: what clients share of it, and what is known of it by what they meet."""

from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from interhub.adapters.mcp import connection
from interhub.hub.faces.mcp import agent_relay
from tests.support.mcp_caller import Caller, Refused, caller
from tests.support.mcp_hub import relayed
from tests.support.mcp_servers import at
from tests.support.mcp_trouble import trouble
from tests.support.whole_hub import whole_hub

pytestmark = pytest.mark.anyio


async def test_each_of_many_listeners_hears_of_a_change_once() -> None:
    async with AsyncExitStack() as stack:
        server, url = await stack.enter_async_context(trouble("legacy"))
        _, face = await stack.enter_async_context(relayed(at(url)))
        callers = [await stack.enter_async_context(caller(face, modern=True, lends={})) for _ in range(4)]
        assert await callers[0].call("works")
        listening = [await each.listen(uris=("it://a", "it://end")) for each in callers]
        with anyio.fail_after(10):
            await server.heard()
            for uri in ("it://a", "it://a", "it://b", "it://end"):
                await server.update(uri)
            for each in callers:
                await each.hear("notifications/resources/updated", matching=lambda note: note["uri"] == "it://end")
        for each in callers:
            heard = [note["uri"] for method, note in each.notes if method == "notifications/resources/updated"]
            assert heard == ["it://a", "it://a", "it://end"]
        for scope in listening:
            scope.cancel()


async def test_a_listener_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_relay, "_MOST_LISTENERS", 1)
    async with trouble("legacy") as (_, url), relayed(at(url)) as (_, face), caller(face, modern=True) as ada:
        first = await ada.listen(toolsListChanged=True)
        with pytest.raises(Refused, match="1 clients listen to this server already"):
            await ada.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        first.cancel()


async def test_of_more_open_questions_than_a_caller_may_have_the_oldest_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_MOST_ASKING", 2)
    params: dict[str, Any] = {"name": "asks", "arguments": {}}
    async with (
        trouble("legacy") as (server, url),
        relayed(at(url)) as (_, face),
        caller(face, modern=True, key="ada") as ada,
        caller(face, modern=True, key="eve") as eve,
    ):
        with anyio.fail_after(10):
            of_eve = await eve.request("tools/call", params)
            first = await ada.request("tools/call", params)
            second = await ada.request("tools/call", params)
            assert len(server.asking) == 3
            third = await ada.request("tools/call", params)
            await server.hung_up.wait()
            assert len(server.asking) == 3
            with pytest.raises(Refused, match="no longer, known: call again"):
                await ada.request("tools/call", ada.answered(params, first))
            for who, asked in ((ada, second), (ada, third), (eve, of_eve)):
                answered = await who.request("tools/call", who.answered(params, asked))
                assert answered["content"][0]["text"] == "answered"


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
@pytest.mark.parametrize("theirs", ["modern", "legacy"])
async def test_a_server_that_is_used_at_its_own_endpoint_only_and_goes_down_is_known_to_fail(
    modern: bool, theirs: str, tmp_path: Path
) -> None:
    async with whole_hub(tmp_path) as hub:

        async def health(state: str) -> None:
            with anyio.fail_after(10):
                while (await hub.client.get("/api/agents/it")).json()["health"]["state"] != state:  # noqa: ASYNC110 -- told over HTTP
                    await anyio.sleep(0.02)

        face = f"{hub.url}/agents/it/mcp"
        async with trouble(theirs) as (_, url):
            body = {"adapter": "mcp", "id": "it", "kind": "endpoint", "endpoint": {"binding": "MCP-HTTP", "url": url}}
            assert (await hub.client.post("/api/agents", json=body)).status_code == 201
            async with caller(face, modern=modern, key=hub.key) as ada:
                await ada.request("tools/list")
                assert (await ada.call("works"))["content"][0]["text"] == "done"
                await health("healthy")
        async with caller(face, modern=modern, key=hub.key, greet=Caller.close) as ada:
            with pytest.raises(Refused):  # noqa: PT012 -- some say hello for a server that they know
                await ada.open()
                await ada.request("tools/list")
        await health("failing")
        async with caller(face, modern=modern, key=hub.key, greet=Caller.close) as ada:
            with suppress(Refused):
                await ada.open()
        await health("failing")
