"""An MCP server of 2026-07-28 that answers calls with tasks: the upstream of the tests of tasks.

`python tests/support/mcp_tasks.py --http PORT [--log FILE] [--silent]`. With `--silent` it tells of no task by itself.
The log has a line for every call, and for every task that was cancelled. Tasks live as long as the process.
"""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import anyio
import anyio.abc
import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY

TASKS = "io.modelcontextprotocol/tasks"
ENDED = ("completed", "failed", "cancelled")
Context = ServerRequestContext[Any, Any]


class TaskParams(types.RequestParams):
    """Of `tasks/get` and `tasks/cancel`."""

    task_id: str


class UpdateParams(TaskParams):
    """Of `tasks/update`."""

    input_responses: dict[str, Any]


@dataclass
class Task:
    """One task."""

    id: str = field(default_factory=lambda: f"task:{uuid4()}")
    status: str = "working"
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    requests: dict[str, Any] = field(default_factory=dict[str, Any])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    changed: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def set(self, status: str, **more: Any) -> None:
        """Go over into a status."""
        self.status, self.more = status, more
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def told(self) -> dict[str, Any]:
        """What is said of it."""
        asked = {"inputRequests": self.requests} if self.status == "input_required" else {}
        times = {"createdAt": self.at, "lastUpdatedAt": self.at, "ttlMs": 600_000, "pollIntervalMs": 50}
        return {"taskId": self.id, "status": self.status, **times, **self.more, **asked}

    async def ask(self, **forms: str) -> dict[str, Any]:
        """Ask for texts, and wait until all are answered."""
        for key, message in forms.items():
            schema = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
            params = {"mode": "form", "message": message, "requestedSchema": schema}
            self.requests[key] = {"method": "elicitation/create", "params": params}
        self.set("input_required")
        while self.requests:
            await self.changed.wait()
        self.set("working")
        return self.answers


class TaskServer:
    """The tools and their tasks."""

    def __init__(self, log: Path | None, *, silent: bool) -> None:
        self._log = log
        self._tasks: dict[str, Task] = {}
        self._gate = anyio.Event()
        self._group: anyio.abc.TaskGroup | None = None
        self._work: dict[str, Callable[[Task, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "gate": self._pass_gate,
            "ask": self._ask,
            "hold": self._hold,
            "break": self._break,
            "sample": self._sample,
        }
        listen = None if silent else self._listen
        self.server: Server[Any] = Server(
            "tasks",
            lifespan=self._lifespan,
            on_list_tools=self._list,
            get_tool_input_schema=lambda name: None,
            on_subscriptions_listen=listen,
        )
        self.server.extensions[TASKS] = {}
        self.server.add_request_handler("tools/call", types.CallToolRequestParams, self._call)
        self.server.add_request_handler("tasks/get", TaskParams, self._get)
        self.server.add_request_handler("tasks/update", UpdateParams, self._update)
        self.server.add_request_handler("tasks/cancel", TaskParams, self._cancel)

    @asynccontextmanager
    async def _lifespan(self, server: Server[Any]) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as group:
            self._group = group
            yield
            group.cancel_scope.cancel()

    async def _list(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        schema = {"type": "object"}
        names = ["open_gate", *self._work]
        return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=schema) for name in names])

    async def _call(self, ctx: Context, params: types.CallToolRequestParams) -> dict[str, Any]:
        if params.name == "open_gate":
            self._gate.set()
            return text("opened")
        self._note(f"call {params.name}")
        capabilities = ctx.session.client_capabilities
        if capabilities is None or TASKS not in (capabilities.extensions or {}):
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "tasks only")
        task = Task()
        self._tasks[task.id] = task
        assert self._group is not None, "requests are served within the lifespan"
        self._group.start_soon(self._perform, task, params)
        return {"resultType": "task", **task.told()}

    async def _perform(self, task: Task, params: types.CallToolRequestParams) -> None:
        with task.scope:
            try:
                result = await self._work[params.name](task, dict(params.arguments or {}))
                task.set("completed", result=result)
            except MCPError as error:
                task.set("failed", error={"code": error.error.code, "message": error.error.message})
        if task.scope.cancelled_caught:
            self._note(f"cancelled {params.name}")
            task.set("cancelled")

    async def _pass_gate(self, task: Task, arguments: dict[str, Any]) -> dict[str, Any]:
        task.set("working", statusMessage="before the gate")
        await self._gate.wait()
        return text("passed")

    async def _ask(self, task: Task, arguments: dict[str, Any]) -> dict[str, Any]:
        answers = await task.ask(one="First?", two="Second?")
        return text(", ".join(f"{key}={_said(answers[key])}" for key in sorted(answers)))

    async def _hold(self, task: Task, arguments: dict[str, Any]) -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError("for ever is over")

    async def _break(self, task: Task, arguments: dict[str, Any]) -> dict[str, Any]:
        raise MCPError(-32099, "it broke")

    async def _sample(self, task: Task, arguments: dict[str, Any]) -> dict[str, Any]:
        task.requests["model"] = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
        task.set("input_required")
        await anyio.sleep_forever()
        raise AssertionError("for ever is over")

    async def _get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        return {"resultType": "complete", **self._find(params.task_id).told()}

    async def _update(self, ctx: Context, params: UpdateParams) -> dict[str, Any]:
        task = self._find(params.task_id)
        for key, answer in params.input_responses.items():
            if task.requests.pop(key, None) is not None:
                task.answers[key] = answer
        task.set(task.status, **task.more)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        task = self._find(params.task_id)
        if task.status not in ENDED:
            task.scope.cancel()
        return {"resultType": "complete"}

    async def _listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        wanted = cast("list[str]", (params.notifications.model_extra or {}).get("taskIds") or [])
        meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        agreed = [task_id for task_id in wanted if task_id in self._tasks]
        await _notify(ctx, "notifications/subscriptions/acknowledged", notifications={"taskIds": agreed}, _meta=meta)

        async def tell(task: Task) -> None:
            while True:
                changed = task.changed
                await _notify(ctx, "notifications/tasks", **task.told(), _meta=meta)
                if task.status in ENDED:
                    return
                await changed.wait()

        async with anyio.create_task_group() as group:
            for task_id in agreed:
                group.start_soon(tell, self._tasks[task_id])
        await anyio.sleep_forever()
        raise AssertionError("for ever is over")

    def _find(self, task_id: str) -> Task:
        if task_id not in self._tasks:
            raise MCPError(types.INVALID_PARAMS, "unknown task")
        return self._tasks[task_id]

    def _note(self, line: str) -> None:
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(f"{line}\n")


def text(said: str) -> dict[str, Any]:
    """A tool's result."""
    return {"resultType": "complete", "content": [{"type": "text", "text": said}]}


def _said(answer: dict[str, Any]) -> str:
    return str(answer["content"]["said"]) if answer["action"] == "accept" else str(answer["action"])


async def _notify(ctx: Context, method: str, **params: Any) -> None:
    note = types.Notification[dict[str, Any], str](method=method, params=params)
    await ctx.session.send_notification(cast("types.ServerNotification", note), ctx.request_id)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, required=True)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--silent", action="store_true")
    options = parser.parse_args()
    app = TaskServer(options.log, silent=options.silent).server.streamable_http_app()
    server = uvicorn.Server(uvicorn.Config(app, port=options.http, log_level="error", timeout_graceful_shutdown=1))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp", flush=True)
    await server.main_loop()


if __name__ == "__main__":
    asyncio.run(main())
