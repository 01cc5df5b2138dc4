"""The short way and the long way through the MCP faces give the same answers, to everything that is sent."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from interhub.adapters.mcp import McpAdapter
from interhub.adapters.mcp.session import McpSession
from interhub.hub.faces.mcp.agent_direct import DirectRelay
from interhub.hub.faces.mcp.entrance import McpEntrance
from tests.support.mcp_hub import SmallHub, small_hub
from tests.support.mcp_servers import at, serving

pytestmark = pytest.mark.anyio

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
INFO = {"io.modelcontextprotocol/serverInfo": {"name": "peer", "version": "1"}}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENVELOPE: dict[str, Any] = {VERSION: "2026-07-28", CAPABILITIES: {}}
BOTH = "application/json, text/event-stream"


class Peer:
    """A server of both eras that answers as it is told to, and remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.slow = anyio.Event()
        self.hung_up = anyio.Event()

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [body for _, body in self.sent if body.get("method") == "tools/call"]

    async def answer(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        body = json.loads(await request.body())
        self.sent.append((dict(request.headers), body))
        modern = request.path_params["era"] == "modern"
        if "id" not in body or "method" not in body:
            return Response(status_code=202)
        result = self._result(body, modern=modern)
        if isinstance(result, Response):
            return result
        said: dict[str, Any] = {"result": result}
        if result is None:
            said = {"error": {"code": -32601, "message": "Method not found"}}
        if modern and body["method"] == "initialize":
            data = {"supported": ["2026-07-28"], "requested": "2025-11-25"}
            said = {"error": {"code": -32022, "message": "Unsupported protocol version", "data": data}}
        headers = {} if modern else {"Mcp-Session-Id": "peers"}
        return JSONResponse({"jsonrpc": "2.0", "id": body["id"], **said}, headers=headers)

    def _result(self, body: dict[str, Any], *, modern: bool) -> dict[str, Any] | Response | None:
        tail: dict[str, Any] = {"resultType": "complete", "_meta": INFO} if modern else {}
        params = body.get("params", {})
        match body["method"]:
            case "server/discover" if modern:
                return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **tail}
            case "initialize" if not modern:
                version = params["protocolVersion"]
                return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "peer"}}
            case "tools/list":
                region = {"type": "string", "x-mcp-header": "Region"}
                schemas = {"routed": {"region": region}}
                names = ("echo", "nothing", "wrong", "odd", "long", "told", "slow", "routed", "broken")
                tools = [
                    {"name": name, "inputSchema": {"type": "object", "properties": schemas.get(name, {})}}
                    for name in names
                ]
                return {"tools": tools, **tail}
            case "tools/call":
                return self._called(body, params, tail)
            case "completion/complete":
                return {"completion": {"values": ["a", "b"]}, **tail}
            case _:
                return None

    def _called(
        self, body: dict[str, Any], params: dict[str, Any], tail: dict[str, Any]
    ) -> dict[str, Any] | Response | None:
        content = [{"type": "text", "text": json.dumps(params.get("arguments")), "x-more": {"kept": None}}]
        match params["name"]:
            case "echo" | "routed":
                return {"content": content, "isError": False, "x-known": [None], **tail}
            case "wrong":
                return {"content": content, "isError": True, **tail}
            case "long":
                number = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[],"big":123456789012345678901234567890}}'
                return Response(number % json.dumps(body["id"]).encode(), media_type="application/json")
            case "told" | "slow":
                return StreamingResponse(self._told(body, content, tail), media_type="text/event-stream")
            case "broken":
                return Response("{", media_type="application/json")
            case _:
                return None

    async def _told(
        self, body: dict[str, Any], content: list[dict[str, Any]], tail: dict[str, Any]
    ) -> AsyncGenerator[bytes]:
        params = body["params"]
        token = params.get("_meta", {}).get("progressToken")
        if token is not None:
            note = {"progressToken": token, "progress": 1, "message": "half"}
            yield _event({"method": "notifications/progress", "params": note})
        if params["name"] == "slow":
            self.slow.set()
            try:
                await anyio.sleep_forever()
            finally:
                self.hung_up.set()
        yield _event({"id": body["id"], "result": {"content": content, **tail}})


def _event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n"


@asynccontextmanager
async def site() -> AsyncGenerator[tuple[SmallHub, Peer, str]]:
    peer = Peer()
    app = Starlette(routes=[Route("/{era}/mcp", peer.answer, methods=["GET", "POST", "DELETE"])])
    async with serving(app) as upstream, small_hub({"mcp": McpAdapter()}) as (hub, address):
        for era in ("modern", "legacy"):
            await hub.add(era, "mcp", at(f"{upstream}/{era}/mcp"))
        yield hub, peer, address


def call(name: str, arguments: Any = None, *, meta: Any = None, **more: Any) -> dict[str, Any]:
    """A request of the modern era."""
    params = {"name": name, "arguments": arguments or {}, "_meta": ENVELOPE if meta is None else meta}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params, **more}


def headers_of(request: dict[str, Any], **more: str) -> dict[str, str]:
    return {
        "Accept": BOTH,
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": str(request.get("method")),
        "Mcp-Name": str(request.get("params", {}).get("name")),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


COMPLETE = {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "x", "value": ""}, "_meta": ENVELOPE}
TABLE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a call": (call("echo", {"text": "hi", "none": None}), {}),
    "a call with an id of text": (call("echo", id="seven"), {}),
    "a call with progress that is not told": (call("echo", meta={**ENVELOPE, "progressToken": "p"}), {}),
    "a call with `_meta` of its own": (call("echo", meta={**ENVELOPE, "mine": {"a": None}}), {}),
    "an argument beyond 64 bits": (call("echo", {"n": 123456789012345678901234567890}), {}),
    "a result beyond 64 bits": (call("long"), {}),
    "a tool that failed": (call("wrong"), {}),
    "a tool that the server does not know": (call("nothing"), {}),
    "a tool that nobody knows": (call("unheard-of"), {}),
    "an answer that is no JSON": (call("broken"), {}),
    "an answer with progress": (call("told", meta={**ENVELOPE, "progressToken": 3}), {}),
    "a stream without progress": (call("told"), {}),
    "completion": ({"jsonrpc": "2.0", "id": 1, "method": "completion/complete", "params": COMPLETE}, {}),
    "an unknown method": ({"jsonrpc": "2.0", "id": 1, "method": "no/such", "params": {"_meta": ENVELOPE}}, {}),
    "another name in the header": (call("echo"), {"Mcp_Name": "wrong"}),
    "no name in the header": (call("echo"), {"Mcp_Name": ""}),
    "another method in the header": (call("echo"), {"Mcp_Method": "tools/list"}),
    "another version in the header": (call("echo"), {"MCP_Protocol_Version": "2027-01-01"}),
    "another version in the envelope": (call("echo", meta={**ENVELOPE, VERSION: "2027-01-01"}), {}),
    "no envelope": (call("echo", meta={}), {}),
    "capabilities that are none": (call("echo", meta={**ENVELOPE, CAPABILITIES: 3}), {}),
    "a name that is a list": (call(cast("Any", ["echo"])), {}),
    "an encoded name": (call("echo"), {"Mcp_Name": "=?base64?ZWNobw==?="}),
    "a parameter in its header": (call("routed", {"region": "eu"}), {"Mcp_Param_Region": "eu"}),
    "another parameter in its header": (call("routed", {"region": "eu"}), {"Mcp_Param_Region": "us"}),
    "a parameter without its header": (call("routed", {"region": "eu"}), {}),
    "a media type that it does not take": (call("echo"), {"Accept": "application/json"}),
    "an id that is none": (call("echo", id=None), {}),
    "an id that is a truth": (call("echo", id=True), {}),
    "not JSON-RPC": ({"id": 1, "method": "tools/call", "params": {}}, {}),
    "another page's request": (call("echo"), {"Origin": "https://evil.example"}),
    "another host": (call("echo"), {"Host": "evil.example"}),
}


def told(response: httpx.Response) -> tuple[int, Any]:
    """What an answer says: its status, and its messages whether they came as a stream or not."""
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        lines = [line[5:] for line in response.text.splitlines() if line.startswith("data:") and line[5:].strip()]
        return response.status_code, [json.loads(line) for line in lines]
    try:
        return response.status_code, [response.json()]
    except ValueError:
        return response.status_code, response.text


@pytest.mark.parametrize("upstream", ["modern", "legacy"])
async def test_both_ways_answer_alike(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as (hub, _, address), httpx.AsyncClient(headers={"Content-Type": "application/json"}) as client:
        url = f"{address}/agents/{upstream}/mcp"
        first = call("echo")
        await client.post(url, json=first, headers=headers_of(first))  # the connection is up from now on
        differences: dict[str, Any] = {}
        for case, (request, changes) in TABLE.items():
            headers, body = headers_of(request, **changes), json.dumps(request).encode()
            hub.records.clear()
            short = told(await client.post(url, content=body, headers=headers)), list(hub.records)
            hub.records.clear()
            with monkeypatch.context() as patched:
                patched.setattr(McpEntrance, "__call__", _long_way)
                long = told(await client.post(url, content=body, headers=headers)), list(hub.records)
            if short != long:
                differences[case] = (short, long)
        assert differences == {}


async def _long_way(entrance: Any, scope: Any, receive: Any, send: Any, caller: Any = None) -> None:
    await entrance._app(scope, receive, send)


@pytest.mark.parametrize("upstream", ["modern", "legacy"])
async def test_a_legacy_session_is_answered_alike(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as (_, peer, address), httpx.AsyncClient(headers={"Accept": BOTH}) as client:
        url = f"{address}/agents/{upstream}/mcp"
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        opened = await client.post(url, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
        headers = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        await client.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
        for name in ("echo", "wrong", "nothing", "long", "told", "broken"):
            for meta in ({}, {"progressToken": 5}):
                params = {"name": name, "arguments": {"a": [None]}, "_meta": meta}
                request = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params}
                before = len(peer.calls)
                short = await client.post(url, json=request, headers=headers)
                assert len(peer.calls) == before + 1, "a call is made once, also where it is handed over"
                with monkeypatch.context() as patched:
                    patched.setattr(McpEntrance, "__call__", _long_way)
                    long = await client.post(url, json=request, headers=headers)
                assert told(short) == told(long)
        stolen = await client.post(url, json=request, headers={**headers, "Authorization": "Bearer mallory"})
        unknown = await client.post(url, json=request, headers={**headers, "Mcp-Session-Id": "0" * 32})
        assert (stolen.status_code, stolen.content) == (unknown.status_code, unknown.content)
        assert stolen.status_code == 404


async def test_a_simple_call_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as (hub, peer, address), httpx.AsyncClient() as client:
        url = f"{address}/agents/modern/mcp"
        request = call("echo", {"text": "hi"})
        await client.post(url, json=request, headers=headers_of(request))
        request["params"]["_meta"] = {**ENVELOPE, "traceparent": PARENT}
        answered = await client.post(url, json=request, headers=headers_of(request))
        assert answered.status_code == 200
        sent, body = peer.sent[-1]
        assert body["id"].startswith("d-"), "it went out past the SDK"
        assert sent["traceparent"] == body["params"]["_meta"]["traceparent"]
        assert sent["traceparent"][:36] == PARENT[:36], "the trace goes on"
        assert hub.records[-1] == ("tester", "echo", "completed")
        request["params"]["_meta"]["baggage"] = 5  # which the SDK's server makes an internal error of
        assert told(await client.post(url, json=request, headers=headers_of(request))) == told(answered)
        assert [state.calls for state in hub.connections()] == [0]


@pytest.mark.parametrize("fault", ["in the shortcut", "behind it"])
async def test_a_fault_of_the_short_way_is_left_to_the_long_one_and_holds_no_connection(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site() as (hub, _, address), httpx.AsyncClient() as client:
        url = f"{address}/agents/modern/mcp"
        request = call("echo", {"text": "hi"})
        await client.post(url, json=request, headers=headers_of(request))

        def broken(*given: Any, **named: Any) -> Any:
            raise RuntimeError("as asked")

        if fault == "in the shortcut":
            monkeypatch.setattr(DirectRelay, "_ticket", broken)
        else:
            monkeypatch.setattr(McpSession, "begin", broken)
        for _ in range(2):
            answered = await client.post(url, json=request, headers=headers_of(request))
            assert answered.status_code == 200
            assert "hi" in answered.text
        assert [state.calls for state in hub.connections()] == [0]


async def test_a_client_that_hangs_up_ends_the_call_that_was_begun() -> None:
    async with site() as (_, peer, address), httpx.AsyncClient() as client:
        url = f"{address}/agents/modern/mcp"
        request = call("slow")
        await client.post(url, json=call("echo"), headers=headers_of(call("echo")))
        with pytest.raises(httpx.ReadTimeout):
            await client.post(url, json=request, headers=headers_of(request), timeout=0.8)
        with anyio.fail_after(5):
            await peer.hung_up.wait()
        assert len([each for each in peer.calls if each["params"]["name"] == "slow"]) == 1


@pytest.mark.parametrize("upstream", ["modern", "legacy"])
async def test_a_call_that_a_legacy_client_cancels_at_once_ends_at_the_server(upstream: str) -> None:
    async with site() as (_, peer, address), httpx.AsyncClient(headers={"Accept": BOTH}) as client:
        url = f"{address}/agents/{upstream}/mcp"
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        opened = await client.post(url, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
        client.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        client.headers["MCP-Protocol-Version"] = "2025-11-25"
        await client.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        await client.post(url, json={**call("echo", meta={}), "id": 1})  # the way to the server is known from now on

        async def begin() -> None:
            await client.post(url, json={**call("slow", meta={}), "id": 2})

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(begin)
                await peer.slow.wait()
                cancelled = {"method": "notifications/cancelled", "params": {"requestId": 2}}
                told = await client.post(url, json={"jsonrpc": "2.0", **cancelled})
                assert told.status_code == 202
                await peer.hung_up.wait()
                tasks.cancel_scope.cancel()
        assert len([each for each in peer.calls if each["params"]["name"] == "slow"]) == 1
