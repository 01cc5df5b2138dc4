"""Modern clients of a server of the older era, which share its sessions."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from interhub.adapters.mcp import connection
from interhub.hub.faces.mcp import agent_relay
from tests.support.mcp_caller import Refused, caller
from tests.support.mcp_hub import relayed
from tests.support.mcp_servers import at
from tests.support.mcp_trouble import trouble

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
