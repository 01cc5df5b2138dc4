"""A tool that becomes another while the hub is connected to its server: called as it is now, on every way."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.mcp_caller import caller
from tests.support.mcp_trouble import Trouble, trouble
from tests.support.whole_hub import WholeHub, whole_hub

pytestmark = pytest.mark.anyio


async def become(hub: WholeHub, server: Trouble, given: str, told: str) -> None:
    """Have the tool `works` take one argument and nothing else, and promise one field; the hub is told."""
    taken: dict[str, Any] = {"type": "object", "properties": {given: {}}, "additionalProperties": False}
    server.definitions["works"] = {"inputSchema": taken, "outputSchema": {"type": "object", "required": [told]}}
    server.results["works"] = {"structuredContent": {told: 1}}
    refreshed = await hub.client.post("/api/agents/peer/refresh")
    assert refreshed.status_code == 200, refreshed.text


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_tool_that_becomes_another_is_called_as_it_is_now(tmp_path: Path, era: str) -> None:
    async with trouble(era) as (server, url), whole_hub(tmp_path, local={}) as hub:
        body = {"kind": "endpoint", "adapter": "mcp", "id": "peer", "endpoint": {"binding": "MCP-HTTP", "url": url}}
        assert (await hub.client.post("/api/agents", json=body)).status_code == 201
        async with caller(f"{hub.url}/mcp", modern=True, key=hub.key) as ada:

            async def call(given: str, **meta: Any) -> Any:
                await ada.request("tools/list")
                params = {"name": "peer__works", "arguments": {given: "x"}, "_meta": meta}
                return (await ada.request("tools/call", params)).get("structuredContent")

            log = {"io.modelcontextprotocol/logLevel": "info"}
            """Has a call go the long way."""
            with anyio.fail_after(10):
                await become(hub, server, "first", "one")
                assert [await call("first"), await call("first"), await call("first", **log)] == [{"one": 1}] * 3
                await become(hub, server, "second", "two")
                assert [await call("second"), await call("second", **log)] == [{"two": 1}] * 2
                await become(hub, server, "third", "three")
                assert [await call("third", **log), await call("third")] == [{"three": 1}] * 2
        assert server.calls == ["works"] * 7


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_what_changed_while_nobody_listened_is_listed_after_the_next_call(tmp_path: Path, era: str) -> None:
    async with trouble(era) as (server, url), whole_hub(tmp_path, local={}) as hub:
        body = {"kind": "endpoint", "adapter": "mcp", "id": "peer", "endpoint": {"binding": "MCP-HTTP", "url": url}}
        assert (await hub.client.post("/api/agents", json=body)).status_code == 201
        async with caller(f"{hub.url}/mcp", modern=True, key=hub.key) as ada:
            await ada.call("peer__works")
            await server.heard()
            await server.forget()
            server.tools = ("works", "brand_new")
            with anyio.fail_after(10):
                before = len(ada.notes)
                listening = await ada.listen(toolsListChanged=True)
                await ada.call("peer__works")
                await ada.hear("notifications/tools/list_changed", after=before)
                assert "peer__brand_new" in [tool["name"] for tool in (await ada.request("tools/list"))["tools"]]
                listening.cancel()
