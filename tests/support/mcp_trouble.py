"""An MCP server of one era that misbehaves as it is told to, byte by byte: the far end of the table of faults."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc

Object = dict[str, Any]
MODERN = "2026-07-28"
HUGE = 20 * 1024 * 1024
FLOOD = 5000
TOOLS = (
    "works", "hangs", "closes", "resets", "breaks_stream", "huge", "not_json", "half_json", "wrong_id", "web_page",
    "no_type", "hologram", "fails_500", "fails_503", "denies", "redirects", "floods", "asks", "changes", "no_result",
    "restarts", "waits",
)  # fmt: skip


class Hangup(Exception):
    """The connection is to be closed now."""


class Trouble:
    """The server. Faults go by the name of the tool that is called."""

    def __init__(self, era: str) -> None:
        self.modern = era == "modern"
        self.tools: tuple[str, ...] = TOOLS
        self.definitions: dict[str, Object] = {}
        """More of a tool's definition, by its name."""
        self.results: dict[str, Object] = {}
        """More of a tool's result, by its name."""
        self.calls: list[str] = []
        self.methods: list[str] = []
        """Of all requests."""
        self.arguments: Object = {}
        """Of the last call."""
        self.param_headers: dict[str, str] = {}
        """The `Mcp-Param-*` of the last call."""
        self.secrets: set[str] = set()
        """What came as credentials."""
        self.hung_up = anyio.Event()
        """The client of a call that hangs has gone, or has cancelled it."""
        self.begun = anyio.Event()
        self.deaf_for = 0
        """How many who want to listen are refused."""
        self.tells = True
        """It says that it tells of changes."""
        self._heard = anyio.Event()
        self.go_on = anyio.Event()
        """What a call that waits waits for."""
        self.sessions: set[str] = set()
        self.greeted = 0
        """Sessions that were ever opened."""
        self.kept: list[tuple[str | None, str, str]] = []
        """What was to be kept for a session: its id, the method, and the level or URI."""
        self.refused: set[str] = set()
        """The URIs that nobody may subscribe to any more."""
        self.asking: dict[str, tuple[anyio.abc.SocketStream, Any]] = {}
        """The calls in the middle of which a server of the older era waits for an answer, by the question's id."""
        self._streams: set[anyio.abc.SocketStream] = set()
        self._listeners: list[tuple[anyio.abc.SocketStream, str | int | None]] = []

    async def forget(self) -> None:
        """Be as one that was restarted: no session is known any more, and no connection is left."""
        self.sessions.clear()
        self._listeners.clear()
        for stream in list(self._streams):
            await stream.aclose()

    async def heard(self) -> None:
        """Wait until somebody listens."""
        with anyio.fail_after(5):
            while not self._listeners:
                self._heard = anyio.Event()
                await self._heard.wait()

    async def change(self, *tools: str) -> None:
        """Offer other tools, and say so."""
        self.tools = tools
        for listener in list(self._listeners):
            stream, number = listener
            meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": number}} if self.modern else {}
            try:
                await stream.send(_event({"method": "notifications/tools/list_changed", "params": meta}))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._listeners.remove(listener)

    async def update(self, uri: str) -> None:
        """Say that a resource changed, to every session of the older era."""
        for stream, _ in self._listeners:
            await stream.send(_event({"method": "notifications/resources/updated", "params": {"uri": uri}}))

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection."""
        self._streams.add(stream)
        try:
            async with stream:
                left = b""
                while True:
                    while b"\r\n\r\n" not in left:
                        left += await stream.receive()
                    head, left = left.split(b"\r\n\r\n", 1)
                    line, *fields = head.decode().split("\r\n")
                    headers = {key.lower(): value.strip() for key, value in (field.split(":", 1) for field in fields)}
                    while len(left) < int(headers.get("content-length", 0)):
                        left += await stream.receive()
                    size = int(headers.get("content-length", 0))
                    body, left = left[:size], left[size:]
                    await self._answer(stream, line.split()[0], headers, body)
        except (Hangup, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            self._streams.discard(stream)

    async def _answer(self, stream: anyio.abc.SocketStream, verb: str, headers: dict[str, str], body: bytes) -> None:
        self.secrets.add(headers.get("authorization", ""))
        session = headers.get("mcp-session-id")
        if session is not None and session not in self.sessions:
            await stream.send(_whole(404, b"", ""))
            return
        if verb == "GET" and not self.modern:
            await stream.send(_head(200, "text/event-stream"))
            self._listen(stream, None)
            await self._until_closed(stream)
        if verb != "POST":
            await stream.send(_whole(405 if verb == "GET" else 200, b"", ""))
            return
        message: Object = json.loads(body)
        method, number = str(message.get("method", "")), message.get("id")
        params: Object = message.get("params") or {}
        if number in self.asking and not method:
            asked_on, call = self.asking[number]
            text: Object = {"content": [{"type": "text", "text": "answered"}]}
            await asked_on.send(_event({"id": call, "result": text}))
        if number is None or not method:
            if method == "notifications/cancelled":
                self.hung_up.set()
            await stream.send(_whole(202, b"", ""))
            return
        self.methods.append(method)
        if method == "tools/call":
            self.calls.append(params["name"])
            self.arguments = params.get("arguments") or {}
            self.param_headers = {key: value for key, value in headers.items() if key.startswith("mcp-param-")}
            await self._call(stream, number, params)
            return
        more = ""
        error: Object | None = None
        result: Object = {}
        match method:
            case "server/discover" if self.modern:
                result = {"supportedVersions": [MODERN], "capabilities": {"tools": {"listChanged": self.tells}}}
            case "initialize" if not self.modern:
                self.greeted += 1
                self.sessions.add(f"s{self.greeted}")
                more = f"Mcp-Session-Id: s{self.greeted}\r\n"
                version = params["protocolVersion"]
                result = {"protocolVersion": version, "capabilities": {"tools": {"listChanged": self.tells}}}
                result["serverInfo"] = {"name": "trouble", "version": "1"}
            case "initialize":
                data = {"supported": [MODERN], "requested": params.get("protocolVersion")}
                error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
            case "tools/list":
                plain: Object = {"inputSchema": {"type": "object"}}
                tools = [{"name": name, **plain, **self.definitions.get(name, {})} for name in self.tools]
                result = {"tools": tools}
            case "subscriptions/listen" if self.modern and self.deaf_for:
                self.deaf_for -= 1
                error = {"code": -32603, "message": "Not now"}
            case "subscriptions/listen" if self.modern:
                await stream.send(_head(200, "text/event-stream"))
                meta = {"io.modelcontextprotocol/subscriptionId": number}
                params = {"notifications": params["notifications"], "_meta": meta}
                await stream.send(_event({"method": "notifications/subscriptions/acknowledged", "params": params}))
                self._listen(stream, number)
                await self._until_closed(stream)
            case "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" if not self.modern:
                self.kept.append((session, method, params.get("level") or params["uri"]))
                if params.get("uri") in self.refused:
                    error = {"code": -32002, "message": "Resource not found"}
            case _:
                error = {"code": -32601, "message": "Method not found"}
        await stream.send(self._reply(number, result, error, more))

    def _reply(self, number: Any, result: Object, error: Object | None = None, more: str = "") -> bytes:
        said: Object = {"error": error} if error is not None else {"result": self._complete(result)}
        return _whole(200, json.dumps({"jsonrpc": "2.0", "id": number, **said}).encode(), "application/json", more)

    def _complete(self, result: Object) -> Object:
        return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result} if self.modern else result

    def _listen(self, stream: anyio.abc.SocketStream, number: str | int | None) -> None:
        self._listeners.append((stream, number))
        self._heard.set()

    async def _until_closed(self, stream: anyio.abc.SocketStream) -> None:
        while True:
            await stream.receive()

    async def _call(self, stream: anyio.abc.SocketStream, number: Any, params: Object) -> None:
        text: Object = {"content": [{"type": "text", "text": "done"}]}
        match params["name"]:
            case "hangs":
                self.begun.set()
                try:
                    await self._until_closed(stream)
                finally:
                    if self.modern:
                        self.hung_up.set()
            case "waits":
                self.begun.set()
                await self.go_on.wait()
                await stream.send(self._reply(number, text))
            case "closes":
                raise Hangup
            case "resets":
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
                raise Hangup
            case "breaks_stream":
                await stream.send(_head(200, "text/event-stream"))
                raise Hangup
            case "restarts":
                await stream.send(_head(200, "text/event-stream") + b"id: 1\nretry: 10\ndata:\n\n")
                await self.forget()
                raise Hangup
            case "huge":
                await stream.send(self._reply(number, {"content": [{"type": "text", "text": "x" * HUGE}]}))
            case "not_json":
                await stream.send(_whole(200, b"It works!", "application/json"))
            case "half_json":
                await stream.send(_whole(200, b'{"jsonrpc":"2.0","id":', "application/json"))
            case "wrong_id":
                await stream.send(self._reply("somebody-elses", text))
            case "web_page":
                await stream.send(_whole(200, b"<html>It works!</html>", "text/html"))
            case "no_type":
                await stream.send(_whole(200, b"?", "application/x-unheard-of"))
            case "no_result":
                body = json.dumps({"jsonrpc": "2.0", "id": number, "result": "done"}).encode()
                await stream.send(_whole(200, body, "application/json"))
            case "hologram":
                await stream.send(self._reply(number, {"content": [{"type": "hologram", "depth": 3}]}))
            case "fails_500":
                await stream.send(_whole(500, b"boom", "text/plain"))
            case "fails_503":
                await stream.send(_whole(503, b"busy", "text/plain"))
            case "denies":
                await stream.send(_whole(401, b"", ""))
            case "redirects":
                await stream.send(_whole(307, b"", "", "Location: http://elsewhere.invalid/\r\n"))
            case "floods":
                await stream.send(_head(200, "text/event-stream"))
                token = params.get("_meta", {}).get("progressToken")
                for done in range(1, FLOOD + 1):
                    note = {"progressToken": token, "progress": done}
                    await stream.send(_event({"method": "notifications/progress", "params": note}))
                await stream.send(_event({"id": number, "result": self._complete(text)}))
                raise Hangup
            case "asks":
                await self._ask(stream, number, params)
            case _:
                await stream.send(self._reply(number, {**text, **self.results.get(params["name"], {})}))

    async def _ask(self, stream: anyio.abc.SocketStream, number: Any, params: Object) -> None:
        if params.get("inputResponses"):
            assert params["requestState"] == "mine"
            await stream.send(self._reply(number, {"content": [{"type": "text", "text": "answered"}]}))
            return
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        request = {"method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": schema}}
        if not self.modern:
            question = f"q-{len(self.calls)}"
            self.asking[question] = (stream, number)
            try:
                await stream.send(_head(200, "text/event-stream") + _event({"id": question, **request}))
                await self._until_closed(stream)
            finally:
                del self.asking[question]
                self.hung_up.set()
        result = {"resultType": "input_required", "inputRequests": {"q": request}, "requestState": "mine"}
        await stream.send(self._reply(number, result))


def _head(status: int, kind: str) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()


def _whole(status: int, body: bytes, kind: str, more: str = "") -> bytes:
    typed = f"Content-Type: {kind}\r\n" if kind else ""
    return f"HTTP/1.1 {status} X\r\n{typed}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _event(message: Object) -> bytes:
    return b"data: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n"


@asynccontextmanager
async def trouble(era: str) -> AsyncGenerator[tuple[Trouble, str]]:
    """Serve one on a free port of loopback; yields it and its URL."""
    server = Trouble(era)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.serve)
        yield server, f"http://127.0.0.1:{port}/mcp"
        tasks.cancel_scope.cancel()
