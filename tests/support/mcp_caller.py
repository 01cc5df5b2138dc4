"""An MCP client of one era over streamable HTTP, in raw JSON: nothing that a server says is lost at this end."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import anyio.abc
import httpx

Object = dict[str, Any]
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
LENDS: Object = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {},
    "roots": {},
    "experimental": {"example.com/c": {"kept": None}},
}
ANSWERS: dict[str, Object] = {
    "form": {"action": "accept", "content": {"name": "Ada"}, "x-answer": {"kept": None}},
    "url": {"action": "accept"},
    "sampling/createMessage": {
        "role": "assistant",
        "content": {"type": "text", "text": "Paris"},
        "model": "scripted",
        "stopReason": "endTurn",
        "x-answer": {"kept": None},
    },
    "roots/list": {"roots": [{"uri": "file:///home/ada", "name": "home", "x-root": 1}]},
}
"""What a caller answers, by method, or by mode of the elicitation."""
_ROUNDS = 8


class Refused(Exception):
    """A request was answered with an error: JSON-RPC's, or HTTP's where the body is none."""

    def __init__(self, status: int, code: int, message: str, data: Any) -> None:
        super().__init__(f"HTTP {status}, {code}: {message} {data!r}")
        self.status = status
        self.code = code
        self.message = message
        self.data = data


class Caller:
    """One client of one era. Keeps what it was told and asked."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, *, modern: bool, lends: Object, tasks: anyio.abc.TaskGroup
    ) -> None:
        self.modern = modern
        self.url = url
        self.greeting: Object = {}
        """What the server said of itself."""
        self.answers = dict(ANSWERS)
        self.asked: list[tuple[str, Object]] = []
        self.notes: list[tuple[str, Object]] = []
        """What was told, on whichever stream."""
        self.states: list[str] = []
        """The request states that came."""
        self.unheard: list[str] = []
        """Why streams that it listened on have ended."""
        self.session_id = ""
        self._http = http
        self._lends = lends
        self._tasks = tasks
        self._numbers = count(1)
        self._told = anyio.Event()
        self._standing = anyio.CancelScope()

    async def open(self) -> None:
        """Say hello, and in the older era open the standing stream."""
        if self.modern:
            self.greeting = await self.request("server/discover")
            return
        hello = {"protocolVersion": LEGACY, "capabilities": self._lends, "clientInfo": {"name": "raw", "version": "1"}}
        self.greeting = await self.request("initialize", hello)
        await self.notify("notifications/initialized")
        await self._tasks.start(self._stand)

    async def close(self) -> None:
        """End the session."""
        if self.session_id:
            await self._http.delete(self.url, headers=self._headers("", {}))

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        number: int | str | None = None,
        began: Callable[[], None] | None = None,
    ) -> Object:
        """Send one request, answer what is asked on its stream, and return its result as it came.

        Raises:
            Refused: it was answered with an error.
        """
        number = next(self._numbers) if number is None else number
        sent = self._enveloped(params or {})
        body: Object = {"jsonrpc": "2.0", "id": number, "method": method, "params": sent}
        more = {**self._headers(method, sent), **(headers or {})}
        async with self._http.stream("POST", self.url, json=body, headers=more) as response:
            self.session_id = response.headers.get("mcp-session-id", self.session_id)
            async for message in _messages(response):
                if message.get("id") == number and "method" not in message:
                    return _result(message, response.status_code)
                await self._take(message)
                if began is not None:
                    began()
        raise Refused(response.status_code, 0, "the stream ended without an answer", None)

    async def use(self, method: str, params: Mapping[str, Any], **more: Any) -> Object:
        """Send a request, answering what interim results ask and sending it again, until it is done."""
        sent = dict(params)
        for _ in range(_ROUNDS):
            result = await self.request(method, sent, **more)
            if result.get("resultType") != "input_required":
                return result
            sent = self.answered(params, result)
        raise AssertionError(f"asked more than {_ROUNDS} times")

    async def call(self, name: str, arguments: Object | None = None, *, meta: Object | None = None) -> Object:
        """Call a tool to its end."""
        params: Object = {"name": name, "arguments": arguments or {}}
        return await self.use("tools/call", {**params, "_meta": meta} if meta is not None else params)

    def answered(self, params: Mapping[str, Any], result: Object) -> Object:
        """Return the request that follows on an interim result."""
        given = {key: self._answer(each["method"], each["params"]) for key, each in result["inputRequests"].items()}
        again = {**params, "inputResponses": given}
        if "requestState" in result:
            self.states.append(result["requestState"])
            again["requestState"] = result["requestState"]
        return again

    async def notify(self, method: str, params: Object | None = None) -> None:
        """Send a notification."""
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        await self._http.post(self.url, json=body, headers=self._headers(method, {}))

    async def listen(self, *, uris: tuple[str, ...] = (), **flags: bool) -> anyio.CancelScope:
        """Begin to hear of changes, in the way of the era; cancel what is returned to end it."""
        scope = anyio.CancelScope()
        if self.modern:
            before = len(self.notes)
            wanted: Object = {**flags, **({"resourceSubscriptions": list(uris)} if uris else {})}

            async def hold() -> None:
                with scope:
                    try:
                        await self.request("subscriptions/listen", {"notifications": wanted})
                    except (Refused, httpx.HTTPError) as error:
                        self.unheard.append(str(error))

            self._tasks.start_soon(hold)
            await self.hear("notifications/subscriptions/acknowledged", after=before)
            return scope
        for uri in uris:
            await self.request("resources/subscribe", {"uri": uri})
        return scope

    async def hear(self, method: str, *, after: int = 0, matching: Callable[[Object], bool] | None = None) -> Object:
        """Wait for a notification and return its parameters."""
        with anyio.fail_after(10):
            while True:
                for told, params in self.notes[after:]:
                    if told == method and (matching is None or matching(params)):
                        return params
                self._told = anyio.Event()
                await self._told.wait()

    async def drop_stream(self) -> None:
        """Break the standing stream off, as a bad network does."""
        self._standing.cancel()

    @property
    def credentials(self) -> dict[str, str]:
        """The headers that say who it is."""
        return {"Authorization": self._http.headers["Authorization"]}

    async def _stand(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": self.session_id, "MCP-Protocol-Version": LEGACY}
        with self._standing:
            async with self._http.stream("GET", self.url, headers=headers) as response:
                assert response.status_code == 200, response.status_code
                task_status.started()
                async for message in _messages(response):
                    await self._take(message)

    async def _take(self, message: Object) -> None:
        method = str(message.get("method"))
        params: Object = message.get("params") or {}
        if "id" not in message:
            self.notes.append((method, params))
            self._told.set()
            return
        assert not self.modern, f"{method} was asked of a client of the newer era"
        answer: Object = {"result": {}} if method == "ping" else {"result": self._answer(method, params)}
        body = {"jsonrpc": "2.0", "id": message["id"], **answer}
        # On its own: what is asked next may come before this has been taken.
        self._tasks.start_soon(self._post, body)

    async def _post(self, body: Object) -> None:
        await self._http.post(self.url, json=body, headers=self._headers("", {}))

    def _answer(self, method: str, params: Object) -> Object:
        self.asked.append((method, params))
        return self.answers[params.get("mode", "form") if method == "elicitation/create" else method]

    def _enveloped(self, params: Mapping[str, Any]) -> Object:
        if not self.modern:
            return dict(params)
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": self._lends,
            **params.get("_meta", {}),
        }
        return {**params, "_meta": meta}

    def _headers(self, method: str, params: Mapping[str, Any]) -> dict[str, str]:
        headers = {"Accept": "application/json, text/event-stream"}
        if not self.modern:
            if self.session_id:
                headers |= {"Mcp-Session-Id": self.session_id, "MCP-Protocol-Version": LEGACY}
            return headers
        headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if method in NAMED:
            headers["Mcp-Name"] = str(params[NAMED[method]])
        return headers


def _result(message: Object, status: int) -> Object:
    error = message.get("error")
    if error is not None:
        raise Refused(status, error["code"], error["message"], error.get("data"))
    result: Object = message["result"]
    return result


async def _messages(response: httpx.Response) -> AsyncIterator[Object]:
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "text/event-stream":
        async for line in response.aiter_lines():
            if line.startswith("data:") and (data := line[5:].strip()):
                yield json.loads(data)
        return
    body = await response.aread()
    if kind != "application/json":
        raise Refused(response.status_code, 0, body.decode("utf-8", "replace"), None)
    message: Object = json.loads(body)
    if "jsonrpc" not in message:
        raise Refused(response.status_code, 0, json.dumps(message), message)
    if message.get("id") is None and "error" in message:
        _result(message, response.status_code)
    yield message


@asynccontextmanager
async def caller(
    url: str,
    *,
    modern: bool,
    key: str = "",
    lends: Object | None = None,
    greet: Callable[[Caller], Awaitable[None]] = Caller.open,
) -> AsyncGenerator[Caller]:
    """Connect a client of one era; `key` is its bearer token."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=100)
    async with (
        httpx.AsyncClient(headers=headers, timeout=30, limits=limits) as http,
        anyio.create_task_group() as tasks,
    ):
        made = Caller(http, url, modern=modern, lends=LENDS if lends is None else lends, tasks=tasks)
        await greet(made)
        yield made
        await made.close()
        tasks.cancel_scope.cancel()
