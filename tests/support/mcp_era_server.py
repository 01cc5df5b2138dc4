"""An MCP server of one era only, that says more than models know and tells what it was sent: the matrix's far end.

python mcp_era_server.py modern|legacy [--http PORT]

Every message is answered in raw JSON through the SDK's transports, so that nothing is lost at this end.
"""

import argparse
import asyncio
import socket
from collections.abc import Mapping
from typing import Any, cast

import anyio
import mcp_types as t
import uvicorn
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.shared.message import ServerMessageMetadata
from pydantic import ConfigDict
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Context = ServerRequestContext[Any, Any]
Object = dict[str, Any]
MODERN = "2026-07-28"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
QUESTIONS: dict[str, Object] = {
    "form": {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": "What is your name?", "requestedSchema": FORM, "x-form": {"kept": None}},
    },
    "page": {
        "method": "elicitation/create",
        "params": {
            "mode": "url",
            "message": "Please sign in",
            "url": "https://login.example/start",
            "elicitationId": "page-1",
        },
    },
    "model": {
        "method": "sampling/createMessage",
        "params": {
            "messages": [{"role": "user", "content": {"type": "text", "text": "Capital of France?"}}],
            "maxTokens": 9,
        },
    },
    "folders": {"method": "roots/list", "params": {}},
}
"""What can be asked of a client, by the name that `ask` takes."""
LENT = {"form": "elicitation", "page": "elicitation", "model": "sampling", "folders": "roots"}
"""The capability of a client that each needs."""
CONTENTS: list[Object] = [
    {"type": "text", "text": "words", "annotations": {"audience": ["user"], "x-hint": 1}, "x-block": {"kept": None}},
    {"type": "image", "data": PNG, "mimeType": "image/png"},
    {"type": "audio", "data": WAV, "mimeType": "audio/wav"},
    {"type": "resource", "resource": {"uri": "peer://inside", "mimeType": "text/plain", "text": "inside"}},
    {"type": "resource", "resource": {"uri": "peer://bytes", "mimeType": "image/png", "blob": PNG}},
    {"type": "resource_link", "uri": "peer://linked", "name": "linked", "x-link": 1},
]
TOOLS: list[Object] = [
    {
        "name": "routed",
        "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
    },
    {
        "name": "typed",
        "title": "Typed",
        "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "$defs": {"x": {}}, "x-in": None},
        "outputSchema": {"type": "object", "properties": {"twice": {"type": "integer"}}, "required": ["twice"]},
        "annotations": {"readOnlyHint": True, "x-hint": {"kept": None}},
        "x-tool": {"kept": None},
        "_meta": {"example.com/tool": 1},
    },
    *(
        {"name": name, "inputSchema": {"type": "object"}}
        for name in (
            "echo", "contents", "hologram", "fails", "refuses", "steps", "logs", "slow", "seen", "ask", "change",
            "note", "forget", "ping",
        )
    ),
]  # fmt: skip
PROMPT = {"name": "greet", "description": "Greets.", "arguments": [{"name": "who", "required": True}], "x-prompt": 1}
RESOURCES = [{"uri": "peer://text", "name": "text", "mimeType": "text/plain", "x-resource": {"kept": None}}]
TEMPLATES = [{"uriTemplate": "peer://of/{id}", "name": "of", "x-template": 1}]
CAPABILITIES: Object = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "completions": {},
    "logging": {},
    "experimental": {"example.com/x": {"kept": [None]}},
}
CHANGES = {
    "tools": "notifications/tools/list_changed",
    "prompts": "notifications/prompts/list_changed",
    "resources": "notifications/resources/list_changed",
}

RawRequest = t.Request[Object, str]
RawNotification = t.Notification[Object, str]


class RawResult(t.Result):
    """A result of which every member is kept."""

    model_config = ConfigDict(extra="allow")


class Peer:
    """The server, and what has happened to it."""

    def __init__(self, era: str) -> None:
        self.modern = era == "modern"
        self.happened: list[str] = []
        self.forgotten: set[str] = set()
        self.known: set[str] = set()
        self._sessions: dict[int, Context] = {}
        self._subscribed: dict[int, set[str]] = {}
        self._listeners: dict[int, tuple[Context, Object]] = {}
        self._noted = anyio.Event()
        self._background: set[asyncio.Task[None]] = set()
        schemas = {tool["name"]: tool["inputSchema"] for tool in TOOLS}
        self.server: Server[Any] = Server("peer", version="1", get_tool_input_schema=schemas.get)
        self.server.middleware.append(self._serve)

    async def _serve(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.request_id is None:
            return await self._notified(ctx, call_next)
        modern = ctx.protocol_version == MODERN
        if not self.modern and (modern or ctx.method == "server/discover"):
            raise MCPError(t.METHOD_NOT_FOUND, "Method not found")
        if self.modern and not modern:
            supported = {"supported": [MODERN], "requested": ctx.protocol_version}
            raise MCPError(t.UNSUPPORTED_PROTOCOL_VERSION, "only 2026-07-28 is spoken here", supported)
        if ctx.method == "ping":
            return await call_next(ctx)
        params = dict(ctx.params or {})
        result = await self._answered(ctx, ctx.method, params)
        if not self.modern:
            return result
        meta = {"io.modelcontextprotocol/serverInfo": {"name": "peer", "version": "1"}, **result.get("_meta", {})}
        cached = {"ttlMs": 5000, "cacheScope": "public"} if ctx.method.partition("/")[2] in CACHED else {}
        return {"resultType": "complete", **cached, **result, "_meta": meta}

    async def _notified(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method == "notifications/initialized":
            connection = connection_of(ctx)
            self._sessions[id(connection)] = ctx
            connection.exit_stack.callback(self._sessions.pop, id(connection), None)
        if ctx.method == "notifications/roots/list_changed":
            self._note("roots changed")
        return await call_next(ctx)

    async def _answered(self, ctx: Context, method: str, params: Object) -> Object:
        match method:
            case "initialize":
                self._note(f"lent {','.join(sorted(params['capabilities']))}")
                return {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": CAPABILITIES,
                    "serverInfo": {"name": "peer", "version": "1", "x-info": 1},
                    "instructions": "Be kind.",
                    "x-hello": {"kept": None},
                }
            case "server/discover":
                more = {"supportedVersions": [MODERN], "instructions": "Be kind.", "x-hello": {"kept": None}}
                return {"capabilities": CAPABILITIES, **more}
            case "tools/list" if "cursor" in params:
                return {"tools": TOOLS[4:], "x-list": {"kept": None}}
            case "tools/list":
                asked = await self._answers(ctx, ["folders"]) if "x-ask" in params and not self.modern else {}
                return {"tools": TOOLS[:4], "nextCursor": "more", "x-list": {"kept": None}, "x-asked": asked}
            case "tools/call":
                return await self._called(ctx, params)
            case "prompts/list":
                return {"prompts": [PROMPT]}
            case "prompts/get":
                return self._greeted(params)
            case "resources/list":
                return {"resources": RESOURCES}
            case "resources/templates/list":
                return {"resourceTemplates": TEMPLATES}
            case "resources/read":
                return self._read(str(params["uri"]))
            case "resources/subscribe" | "resources/unsubscribe":
                return self._subscribe(ctx, method, str(params["uri"]))
            case "completion/complete":
                values = [f"{params['argument']['value']}a", params["ref"]["type"]]
                return {"completion": {"values": values, "total": 2, "hasMore": False, "x-completion": 1}}
            case "logging/setLevel":
                self._note(f"level {params['level']}")
                return {}
            case "subscriptions/listen" if self.modern:
                return await self._listened(ctx, params)
            case _:
                raise MCPError(t.METHOD_NOT_FOUND, "Method not found", {"method": method})

    def _note(self, what: str) -> None:
        self.happened.append(what)
        self._noted.set()
        self._noted = anyio.Event()

    async def _noticed(self, what: str) -> None:
        while not any(line.startswith(what) for line in self.happened):
            await self._noted.wait()

    def _greeted(self, params: Object) -> Object:
        if params["name"] != "greet":
            raise MCPError(t.INVALID_PARAMS, f"no prompt {params['name']}", {"x-data": [1]})
        content = {"type": "text", "text": f"Hello {params.get('arguments', {}).get('who')}"}
        return {"messages": [{"role": "user", "content": content, "x-message": 1}], "description": "A greeting"}

    def _read(self, uri: str) -> Object:
        if uri == "peer://text":
            content: Object = {"text": "the text", "mimeType": "text/plain", "x-content": {"kept": None}}
        elif uri.startswith("peer://of/"):
            content = {"blob": PNG, "mimeType": "image/png"}
        else:
            raise MCPError(t.INVALID_PARAMS if self.modern else -32002, "Resource not found", {"uri": uri})
        return {"contents": [{"uri": uri, **content}]}

    def _subscribe(self, ctx: Context, method: str, uri: str) -> Object:
        if self.modern:
            raise MCPError(t.METHOD_NOT_FOUND, "Method not found")
        mine = self._subscribed.setdefault(id(connection_of(ctx)), set())
        (mine.add if method.endswith("/subscribe") else mine.discard)(uri)
        self._note(f"{method} {uri}")
        return {}

    async def _listened(self, ctx: Context, params: Object) -> Object:
        wanted = dict(params["notifications"])
        acknowledged = {"notifications": wanted, "_meta": {SUBSCRIPTION: ctx.request_id}}
        self._listeners[id(ctx)] = (ctx, wanted)
        self._note(f"listening {','.join(sorted(wanted))}")
        try:
            await self._say(ctx, "notifications/subscriptions/acknowledged", acknowledged)
            await anyio.sleep_forever()
        finally:
            del self._listeners[id(ctx)]
            self._note(f"left {','.join(sorted(wanted))}")
        raise AssertionError

    # Tools

    async def _called(self, ctx: Context, params: Object) -> Object:
        arguments: Object = params.get("arguments") or {}
        match params["name"]:
            case "echo":
                headers = dict(ctx.request.headers) if ctx.request is not None else {}
                return {
                    "content": [{"type": "text", "text": "echoed"}],
                    "structuredContent": {"params": params, "headers": headers, "none": None},
                    "isError": False,
                    "_meta": {"example.com/said": {"kept": [None]}},
                    "x-result": {"kept": [None]},
                }
            case "routed":
                header = ctx.request.headers.get("mcp-param-region") if ctx.request is not None else None
                return self._text("routed", structuredContent={"region": arguments.get("region"), "header": header})
            case "typed":
                return self._text("typed", structuredContent={"twice": 2 * arguments["n"]})
            case "contents":
                return {"content": CONTENTS}
            case "hologram":
                return {"content": [{"type": "hologram", "depth": {"kept": None}}]}
            case "fails":
                return self._text("the disk is full", isError=True)
            case "refuses":
                raise MCPError(-31999, "not on Sundays", {"x-data": {"kept": [None]}})
            case "steps":
                token = params.get("_meta", {}).get("progressToken")
                for done in (1, 2):
                    note = {
                        "progressToken": token,
                        "progress": done,
                        "total": 2,
                        "message": f"step {done}",
                        "x-note": 1,
                    }
                    if token is not None:
                        await self._say(ctx, "notifications/progress", note)
                return self._text("stepped")
            case "logs":
                return await self._logged(ctx, params, arguments)
            case "slow":
                return await self._slept(ctx, params, arguments)
            case "seen":
                await self._noticed(str(arguments["until"]))
                return self._text("seen", structuredContent={"happened": list(self.happened)})
            case "ask":
                return await self._asked(ctx, params, arguments)
            case "change":
                return await self._changed(arguments)
            case "note":
                self._note(str(arguments["what"]))
                return self._text("noted")
            case "forget":
                self.forgotten |= self.known
                return self._text("forgotten")
            case "ping":
                if not self.modern:
                    await self._request(ctx, "ping", {})
                return self._text("pong")
            case name:
                raise MCPError(t.INVALID_PARAMS, f"unknown tool {name!r}")

    def _text(self, text: str, **more: Any) -> Object:
        return {"content": [{"type": "text", "text": text}], **more}

    async def _logged(self, ctx: Context, params: Object, arguments: Object) -> Object:
        wanted = not self.modern or "io.modelcontextprotocol/logLevel" in params.get("_meta", {})
        for line in ("first", "second"):
            if wanted:
                data = {"line": f"{arguments['mark']} {line}"}
                await self._say(ctx, "notifications/message", {"level": "info", "logger": "peer", "data": data})
        return self._text(f"logged {arguments['mark']}")

    async def _slept(self, ctx: Context, params: Object, arguments: Object) -> Object:
        token = params.get("_meta", {}).get("progressToken")
        note = {"progressToken": token, "progress": 1, "message": "begun"}
        if token is not None:
            await self._say(ctx, "notifications/progress", note)
        self._note(f"began {arguments['mark']}")
        try:
            await anyio.sleep_forever()
        finally:
            self._note(f"cancelled {arguments['mark']}")
        raise AssertionError

    async def _changed(self, arguments: Object) -> Object:
        what, uri = str(arguments["what"]), str(arguments.get("uri", ""))
        method = "notifications/resources/updated" if uri else CHANGES[what]
        params: Object = {"uri": uri} if uri else {}
        if self.modern:
            for ctx, wanted in list(self._listeners.values()):
                if uri in wanted.get("resourceSubscriptions", ()) or (not uri and wanted.get(f"{what}ListChanged")):
                    await self._say(ctx, method, {**params, "_meta": {SUBSCRIPTION: ctx.request_id}})
        else:
            for key, ctx in list(self._sessions.items()):
                if not uri or uri in self._subscribed.get(key, ()):
                    with anyio.move_on_after(2):
                        note = RawNotification(method=method, params=params)
                        await ctx.session.send_notification(cast("Any", note))
        return self._text("changed")

    # Asking

    async def _asked(self, ctx: Context, params: Object, arguments: Object) -> Object:
        names: list[str] = arguments["names"]
        missing = sorted({LENT[name] for name in names} - self._lent(ctx, params))
        if missing:
            return self._text(f"the client lends no {', '.join(missing)}", isError=True)
        if self.modern:
            return self._asked_by_retry(params, names)
        if "unawaited" in arguments:
            asking = asyncio.create_task(self._ask_on(ctx, names, str(arguments["unawaited"])))
            self._background.add(asking)
            asking.add_done_callback(self._background.discard)
            await self._noticed(f"go on without {arguments['unawaited']}")
            return self._text("gone on")
        answers = await self._answers(ctx, names, beside=bool(arguments.get("beside")))
        return self._text("answered", structuredContent={"answers": answers})

    async def _ask_on(self, ctx: Context, names: list[str], mark: str) -> None:
        answers = await self._answers(ctx, names, beside=True)
        if not any("error" in answer for answer in answers.values()):
            self._note(f"answered {mark}")

    async def _answers(self, ctx: Context, names: list[str], *, beside: bool = False) -> Object:
        """Ask on the request's stream, or `beside` it, as many servers do: with no word of which request it is for."""
        answers: Object = {}

        async def put(name: str) -> None:
            request = QUESTIONS[name]
            try:
                answers[name] = await self._request(ctx, request["method"], request["params"], beside=beside)
            except MCPError as error:
                answers[name] = {"error": error.message}
            if name == "page":
                await self._say(ctx, "notifications/elicitation/complete", {"elicitationId": "page-1"})

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(put, name)
        return answers

    def _asked_by_retry(self, params: Object, names: list[str]) -> Object:
        given: Object = params.get("inputResponses") or {}
        if not given:
            requests = {name: QUESTIONS[name] for name in names}
            return {"resultType": "input_required", "inputRequests": requests, "requestState": "the peer's own"}
        if params.get("requestState") != "the peer's own":
            raise MCPError(t.INVALID_PARAMS, f"that is not my state: {params.get('requestState')!r}")
        return self._text("answered", structuredContent={"answers": {name: given.get(name) for name in names}})

    def _lent(self, ctx: Context, params: Object) -> set[str]:
        if self.modern:
            return set(params.get("_meta", {}).get("io.modelcontextprotocol/clientCapabilities", {}))
        offered = ctx.session.client_capabilities
        return set(offered.model_dump(by_alias=True, exclude_none=True)) if offered is not None else set()

    async def _request(self, ctx: Context, method: str, params: Mapping[str, Any], *, beside: bool = False) -> Object:
        metadata = None if beside else ServerMessageMetadata(related_request_id=ctx.request_id)
        request = cast("Any", RawRequest(method=method, params=dict(params)))
        answer = await ctx.session.send_request(request, RawResult, metadata=metadata)
        return answer.model_dump(by_alias=True, mode="json", exclude_unset=True)

    async def _say(self, ctx: Context, method: str, params: Object) -> None:
        note = cast("Any", RawNotification(method=method, params=params))
        await ctx.session.send_notification(note, ctx.request_id)


def connection_of(ctx: Context) -> Any:
    """Return what lives as long as a session; the SDK has no public place for it."""
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]  # see above


CACHED = {"list", "templates/list", "read", "discover"}


def forgetful(peer: Peer, app: ASGIApp) -> ASGIApp:
    """Answer as a restarted server does to the sessions that were forgotten."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        session = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        if session in peer.forgotten:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = dict(message["headers"]).get(b"mcp-session-id")
                if given is not None:
                    peer.known.add(given.decode())
            await send(message)

        await app(scope, receive, noting)

    return front


async def over_stdio(server: Server[Any], era: str) -> None:
    async with stdio_server() as (read, write):
        if era == "legacy":
            return await serve_loop(server, read, write, lifespan_state={})
        await server.run(read, write, server.create_initialization_options())
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("era", choices=("modern", "legacy"))
    parser.add_argument("--http", type=int)
    given = parser.parse_args()
    peer = Peer(given.era)
    if given.http is None:
        anyio.run(over_stdio, peer.server, given.era)
        return
    listening = socket.create_server(("127.0.0.1", given.http))
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    app = forgetful(peer, peer.server.streamable_http_app())
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run([listening])


if __name__ == "__main__":
    main()
