"""Where MCP servers may be, and how they are trusted: the SDK's way to them and the direct one, by real sockets."""

import json
import socket
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interhub.adapters import BadEndpoint
from interhub.adapters.addresses import AddressRefused, Reach
from interhub.adapters.egress import tls_context
from interhub.adapters.http1 import Http1Pool, NotConnected, Origin
from interhub.adapters.mcp import McpAdapter
from interhub.adapters.mcp.network import reach_of, resolver
from interhub.agent_cards import Binding, Endpoint
from tests.support.mcp_servers import serving

pytestmark = pytest.mark.anyio

INFO = {"io.modelcontextprotocol/serverInfo": {"name": "small", "version": "1"}}


async def small(request: Request) -> Response:
    """A server of one tool."""
    asked = json.loads(await request.body())
    results: dict[str, dict[str, Any]] = {
        "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
        "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "hello"}]},
    }
    result = {**results[asked["method"]], "resultType": "complete", "_meta": INFO}
    return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": result})


def _within(monkeypatch: pytest.MonkeyPatch, address: str) -> list[str]:
    """Have `tools.internal` resolve to an address; returns how often it was asked for."""
    real, asked = socket.getaddrinfo, list[str]()

    def name_server(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in ("tools.internal", b"tools.internal"):
            return real(host, port, *args, **options)
        asked.append(address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    return asked


@pytest.mark.parametrize("binding", [Binding.MCP_HTTP, Binding.MCP_SSE])
async def test_a_name_within_a_private_network_needs_the_allowance(
    monkeypatch: pytest.MonkeyPatch, binding: Binding
) -> None:
    asked = _within(monkeypatch, "10.255.255.1")
    with pytest.raises(AddressRefused, match=r"10\.255\.255\.1.*--allow-private"):
        await McpAdapter(startup_timeout_s=5).describe(Endpoint(binding=binding, url="http://tools.internal/mcp"))
    assert asked


@pytest.mark.parametrize("way", ["option", "network"])
async def test_with_the_allowance_of_the_agent_or_the_hub_it_is_reached(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    _within(monkeypatch, "127.0.0.1")
    async with serving(Starlette(routes=[Route("/mcp", small, methods=["POST"])])) as address:
        url = f"{address}/mcp".replace("127.0.0.1", "tools.internal")
        options: dict[str, Any] = {"allow_private": True} if way == "option" else {}
        adapter = McpAdapter(reach=Reach.of(["127.0.0.0/8"]) if way == "network" else None)
        card = await adapter.describe(Endpoint(binding=Binding.MCP_HTTP, url=url, options=options))
    assert [each.name for each in card.capabilities] == ["echo"]


async def test_the_metadata_service_is_not_reached_even_where_the_operator_wrote_it() -> None:
    adapter = McpAdapter(startup_timeout_s=5)
    with pytest.raises(AddressRefused, match="credentials"):
        await adapter.describe(Endpoint(binding=Binding.MCP_HTTP, url="http://169.254.169.254/mcp"))


async def test_the_direct_way_resolves_a_name_when_it_connects_and_connects_to_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = _within(monkeypatch, "10.255.255.1")
    endpoint = Endpoint(binding=Binding.MCP_HTTP, url="http://tools.internal/mcp")
    origin = Origin(host="tools.internal", port=80, tls=False)
    pool = Http1Pool(origin, tls=tls_context, resolve=resolver(reach_of(endpoint, Reach())))
    with pytest.raises(NotConnected, match=r"10\.255\.255\.1"):
        await pool.connect_and_send(b"GET / HTTP/1.1\r\nHost: tools.internal\r\n\r\n")
    assert len(asked) == 1
    pool.close()


async def test_an_address_that_is_no_url_is_said_to_be_none() -> None:
    with pytest.raises(BadEndpoint, match="URL"):
        await McpAdapter().describe(Endpoint(binding=Binding.MCP_HTTP, url="http://[::1/mcp"))
