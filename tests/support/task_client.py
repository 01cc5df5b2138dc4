"""A client of MCP 2026-07-28 that knows tasks, over HTTP and nothing else: it says and hears the wire itself."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import anyio
import httpx

VERSION = "2026-07-28"
TASKS = "io.modelcontextprotocol/tasks"
KNOWS_TASKS: Mapping[str, Any] = {"elicitation": {}, "extensions": {TASKS: {}}}
NAMED = {"tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}


class Refused(Exception):
    """An error of JSON-RPC."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.code = error["code"]
        self.message = str(error["message"])
        self.data: Any = error.get("data")


class TaskClient:
    """Sends requests to one endpoint."""

    def __init__(self, http: httpx.AsyncClient, url: str, capabilities: Mapping[str, Any], key: str) -> None:
        self._http = http
        self._url = url
        self._capabilities = capabilities
        self._key = key
        self._ids = count(1)

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Return a result.

        Raises:
            Refused: the answer is an error.
        """
        async with self._sent(method, params) as messages:
            async for message in messages:
                if "result" in message or "error" in message:
                    return _result(message)
        raise AssertionError(f"{method} was not answered")

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Use a tool."""
        return await self.request("tools/call", name=name, arguments=arguments or {}, **more)

    @asynccontextmanager
    async def listening(self, *task_ids: str) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
        """Subscribe to tasks; yields the notifications, the acknowledgement first."""
        params = {"notifications": {"taskIds": list(task_ids)}}
        async with self._sent("subscriptions/listen", params) as messages:
            yield (_noted(message) async for message in messages)

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Return what is told of a task once it is in one of these states."""
        with anyio.fail_after(30):
            async with self.listening(task_id) as notes:
                async for note in notes:
                    if note["method"] == "notifications/tasks" and note["params"]["status"] in statuses:
                        return cast("dict[str, Any]", note["params"])
        raise AssertionError(f"nothing was told of {task_id}")

    @asynccontextmanager
    async def _sent(self, method: str, params: Mapping[str, Any]) -> AsyncGenerator[AsyncIterator[dict[str, Any]]]:
        meta = {
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": self._capabilities,
        }
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": {**params, "_meta": meta}}
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": VERSION,
            "mcp-method": method,
        }
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        if method in NAMED:
            headers["mcp-name"] = params[NAMED[method]]
        async with self._http.stream("POST", self._url, json=body, headers=headers) as answer:
            yield _messages(answer)


async def _messages(answer: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        yield json.loads(await answer.aread())
        return
    async for line in answer.aiter_lines():
        if line.startswith("data:") and line[5:].strip():
            yield json.loads(line[5:])


def _result(message: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in message:
        raise Refused(message["error"])
    return cast("dict[str, Any]", message["result"])


def _noted(message: dict[str, Any]) -> dict[str, Any]:
    if "error" in message:
        raise Refused(message["error"])
    return message


@asynccontextmanager
async def task_client(
    url: str, *, key: str = "", capabilities: Mapping[str, Any] = KNOWS_TASKS
) -> AsyncGenerator[TaskClient]:
    """Open a client. `key` goes out as `Authorization: Bearer KEY`."""
    async with httpx.AsyncClient(timeout=httpx.Timeout(30, read=60)) as http:
        yield TaskClient(http, url, capabilities, key)
