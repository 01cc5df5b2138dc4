"""MCP servers that become others while the connection to them is open."""

import anyio
import pytest

from interhub.adapters import Call, Completed, Principal, ProtocolViolation, RemoteRefused, ignore
from interhub.adapters.backoff import Backoff
from interhub.adapters.mcp import McpAdapter
from interhub.adapters.mcp.changes import UNHEARD
from interhub.adapters.mcp.connection import McpConnection
from interhub.adapters.pool import ConnectionPool, PoolKey
from interhub.agent_cards import AgentCard, Capability, JsonObject, Kind
from tests.support.mcp_servers import at
from tests.support.mcp_trouble import Trouble, trouble

pytestmark = pytest.mark.anyio

TOLD = "notifications/tools/list_changed"
ADA = PoolKey(credential="ada", agent="peer")


def become(server: Trouble, given: str, told: str) -> None:
    """Have the tool `works` take one argument, in a header too, and nothing else, and promise one field."""
    properties = {given: {"type": "string", "x-mcp-header": given.title()}}
    taken = {"type": "object", "properties": properties, "required": [given], "additionalProperties": False}
    promised = {"type": "object", "properties": {told: {"type": "integer"}}, "required": [told]}
    server.definitions["works"] = {"inputSchema": taken, "outputSchema": promised}
    server.results["works"] = {"structuredContent": {told: 1}}


def works(**arguments: str) -> Call:
    principal = Principal(subject="ada")
    return Call(capability="works", kind=Kind.TOOL, arguments=arguments, principal=principal, idempotency_key="1")


def tool(card: AgentCard) -> Capability:
    found = card.capability("works", Kind.TOOL)
    assert found is not None
    return found


async def test_a_tool_that_takes_something_else_is_called_and_believed_as_it_is_now() -> None:
    async with trouble("modern") as (server, url), ConnectionPool() as pool:
        adapter, endpoint = McpAdapter(), at(url)

        async def call(card: AgentCard, **arguments: str) -> dict[str, str]:
            connection = await pool.get(ADA, lambda: adapter.connect(endpoint, card=card, label="peer"), card=card)
            with anyio.fail_after(5):
                assert isinstance(await connection.call(works(**arguments), ignore), Completed)
            return server.param_headers

        become(server, "first", "one")
        old = await adapter.describe(endpoint)
        assert await call(old, first="x") == {"mcp-param-first": "x"}
        become(server, "second", "two")
        new = await adapter.describe(endpoint)
        assert await call(new, second="x") == {"mcp-param-second": "x"}
        with pytest.raises(RemoteRefused, match="does not take these arguments"):
            await call(new, first="x")
        with pytest.raises(ProtocolViolation, match="does not fit the output schema"):
            await call(old, first="x")


async def test_the_short_way_goes_by_the_capability_that_it_is_given() -> None:
    async def call(connection: McpConnection, capability: Capability, **arguments: str) -> JsonObject:
        begun = connection.begin(works(**arguments), capability, "", trace={}, with_progress=False)
        assert begun is not None
        with anyio.fail_after(5):
            assert await begun.settled(5)
        assert begun.result is not None
        return begun.result

    async with trouble("modern") as (server, url):
        adapter, endpoint = McpAdapter(), at(url)
        become(server, "first", "one")
        old = await adapter.describe(endpoint)
        async with adapter.connect(endpoint, card=old, label="peer") as connection:
            assert isinstance(connection, McpConnection)
            await connection.call(works(first="x"), ignore)
            before = await call(connection, tool(old), first="x")
            assert connection.keeps_promise(before, tool(old))
            become(server, "second", "two")
            new = tool(await adapter.describe(endpoint))
            after = await call(connection, new, second="x")
            assert server.param_headers == {"mcp-param-second": "x"}
            assert connection.keeps_promise(after, new)
            assert not connection.keeps_promise(before, new)


async def test_what_was_made_of_a_schema_serves_another_that_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[JsonObject] = []

    def header_map(schema: JsonObject) -> dict[tuple[str, ...], str]:
        made.append(schema)
        return {}

    monkeypatch.setattr("interhub.adapters.mcp.connection.x_mcp_header_map", header_map)
    async with trouble("modern") as (server, url):
        adapter, endpoint = McpAdapter(), at(url)
        become(server, "first", "one")
        card = await adapter.describe(endpoint)
        async with adapter.connect(endpoint, card=card, label="peer") as connection:
            assert isinstance(connection, McpConnection)
            for _ in range(2):
                await connection.call(works(first="x"), ignore)
                connection.renew(await adapter.describe(endpoint))
    assert len(made) == 1


class Told:
    """Takes what an adapter says of changes, and lets them be waited for."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._more = anyio.Event()

    def __call__(self, label: str, why: str) -> None:
        self.reasons.append(why)
        self._more.set()

    async def count(self, wanted: int) -> None:
        with anyio.fail_after(5):
            while len(self.reasons) < wanted:
                self._more = anyio.Event()
                await self._more.wait()


async def test_a_server_that_cuts_every_stream_is_listened_to_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interhub.adapters.mcp.connection.RELISTEN", Backoff(first_s=0.01, cap_s=0.01))
    told = Told()
    async with trouble("modern") as (server, url):
        adapter, endpoint = McpAdapter(on_changed=told), at(url)
        card = await adapter.describe(endpoint)
        async with adapter.connect(endpoint, card=card, label="peer") as connection:
            await connection.call(works(), ignore)
            await server.heard()
            assert not told.reasons, "the first time: nothing can have been missed"
            for again in range(8):
                await server.forget()
                await told.count(again + 1)
            assert told.reasons == [UNHEARD] * 8
            await server.change("works", "more")
            await told.count(9)
    assert told.reasons[8:] == [TOLD]


async def test_a_server_that_refuses_for_a_while_to_be_listened_to_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interhub.adapters.mcp.connection.RELISTEN", Backoff(first_s=0.01, cap_s=0.01))
    told = Told()
    async with trouble("modern") as (server, url):
        adapter, endpoint = McpAdapter(on_changed=told), at(url)
        card = await adapter.describe(endpoint)
        async with adapter.connect(endpoint, card=card, label="peer") as connection:
            await connection.call(works(), ignore)
            await server.heard()
            server.deaf_for = 3
            await server.forget()
            await told.count(1)
    assert server.deaf_for == 0
    assert told.reasons == [UNHEARD]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_server_that_is_connected_to_again_may_have_changed_meanwhile(era: str) -> None:
    told = Told()
    async with trouble(era) as (server, url):
        adapter, endpoint = McpAdapter(on_changed=told), at(url)
        card = await adapter.describe(endpoint)
        for earlier in range(3):
            async with adapter.connect(endpoint, card=card, label="peer") as connection:
                await connection.call(works(), ignore)
                await server.heard()
                await told.count(earlier)
                assert told.reasons == [UNHEARD] * earlier
            await server.forget()


async def test_a_server_that_forgot_the_session_may_have_changed_meanwhile() -> None:
    told = Told()
    async with trouble("legacy") as (server, url):
        adapter, endpoint = McpAdapter(on_changed=told), at(url)
        card = await adapter.describe(endpoint)
        async with adapter.connect(endpoint, card=card, label="peer") as connection:
            await connection.call(works(), ignore)
            assert not told.reasons
            server.sessions.clear()
            await connection.call(works(), ignore)
            await told.count(1)
    assert told.reasons == [UNHEARD]


async def test_a_server_that_never_tells_of_changes_is_taken_to_be_as_it_was() -> None:
    told = Told()
    async with trouble("legacy") as (server, url):
        server.tells = False
        adapter, endpoint = McpAdapter(on_changed=told), at(url)
        card = await adapter.describe(endpoint)
        for _ in range(2):
            async with adapter.connect(endpoint, card=card, label="peer") as connection:
                await connection.call(works(), ignore)
    assert not told.reasons
