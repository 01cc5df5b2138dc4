"""Runs as MCP tasks (SEP-2663, `io.modelcontextprotocol/tasks`): begun by a `tools/call`, followed by their id.

A task is a run, so it lasts as long as one: past a disconnect, a crash and a restart of the hub. Its id is the run's,
after the name of how its result is shown where that is not the way of `delegate`. Every look-up is the caller's own:
another principal's task is answered as one that there is not.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, cast

import anyio
import mcp_types as types
import structlog
from mcp.server.lowlevel.server import Server
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from interhub.adapters import Principal
from interhub.hub.errors import RunEnded, RunNotFound
from interhub.hub.supervisor.run import Assignment, Event, EventKind, Run, RunState

from .asking import Answerable, asked_by, give
from .questions import Asking, Client, client_of, question_text
from .turn import Context, principal_of

TASKS = "io.modelcontextprotocol/tasks"
"""The extension's identifier."""
TASK_METHODS: Mapping[str, str] = {"tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}
"""Its methods, and the parameter of each that the `Mcp-Name` header repeats."""
POLL_INTERVAL_MS = 1000
MAX_FOLLOWED = 100
"""Most tasks that one `subscriptions/listen` follows."""
_TOLD_CHARS = 300

View: TypeAlias = Callable[[Run], types.CallToolResult]
"""Shows an ended run as the result of the call that began it. Raises MCPError where the call would have."""
Listen: TypeAlias = Callable[
    [Context, types.SubscriptionsListenRequestParams], Awaitable[types.SubscriptionsListenResult]
]

_STATUS: Mapping[RunState, str] = {
    RunState.SUBMITTED: "working",
    RunState.WORKING: "working",
    RunState.INPUT_REQUIRED: "input_required",
    RunState.AUTH_REQUIRED: "input_required",
    RunState.COMPLETED: "completed",
    RunState.FAILED: "completed",  # of a tool: its result says that it failed; `failed` is for errors of JSON-RPC
    RunState.REJECTED: "completed",
    RunState.CANCELED: "cancelled",
}
_NEWS = frozenset(EventKind) - {EventKind.STEP_PROGRESS, EventKind.STEP_LOG, EventKind.STEP_ARTIFACT}
"""Events that may change what is said of a task."""

log = structlog.get_logger()


class RunHub(Answerable, Protocol):
    """The verbs of `interhub.hub.service.Hub` that are used here."""

    async def submit(self, assignment: Assignment) -> Run:
        """Begin a durable run.

        Raises:
            HubError, RegistryError: it cannot be begun.
        """
        ...

    async def run(self, principal: Principal, run_id: str) -> Run:
        """Return a run as it stands.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        ...

    def watch(self, principal: Principal, run_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield what happens in a run after a sequence number, until it has ended."""
        ...

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Stop a run.

        Raises:
            RunEnded: there is nothing left to stop.
        """
        ...


class TaskParams(types.RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    task_id: str


class TaskUpdateParams(TaskParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, Any]


def knows_tasks(capabilities: Mapping[str, object]) -> bool:
    """Whether a client's capabilities, as they came in a modern request's envelope, declare the extension."""
    extensions = capabilities.get("extensions")
    return isinstance(extensions, Mapping) and TASKS in extensions


def declares_tasks(ctx: Context) -> bool:
    """Whether a request may be answered with a task. In the older era there are none."""
    capabilities = ctx.session.client_capabilities
    extensions = capabilities.extensions if capabilities is not None else None
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and extensions is not None and TASKS in extensions


def tasks_missing(what: str) -> MCPError:
    """Return the error for a client that would have to know tasks (SEP-2663, capability negotiation)."""
    data: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"{what} needs the client's extension {TASKS}", data)


def check_name(ctx: Context, value: str) -> None:
    """Refuse a request over HTTP whose `Mcp-Name` header is not its task's id (SEP-2663, routing headers)."""
    if ctx.request is not None and decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER)) != value:
        raise MCPError(types.HEADER_MISMATCH, f"the {MCP_NAME_HEADER} header does not match params.taskId")


class RunTasks:
    """Serves the extension at one endpoint."""

    def __init__(self, hub: RunHub, views: Mapping[str, View], *, agent_id: str = "") -> None:
        """Take the hub, and how results are shown, by the name that a task's id begins with (empty for none).

        With `agent_id`, only that agent's runs are tasks here.
        """
        self._hub = hub
        self._views = views
        self._agent_id = agent_id

    def serve(self, server: Server[Any]) -> None:
        """Add the extension to a server."""
        server.extensions[TASKS] = {}
        server.add_request_handler("tasks/get", TaskParams, self._get)
        server.add_request_handler("tasks/update", TaskUpdateParams, self._update)
        server.add_request_handler("tasks/cancel", TaskParams, self._cancel)

    async def create(self, assignment: Assignment, view: str = "") -> dict[str, Any]:
        """Begin a run, and return the result that tells a client of its task. It can be asked for from then on.

        Raises:
            HubError, RegistryError: the run cannot be begun.
        """
        run: Run | None = None
        # A client that hangs up now must not leave a run half begun.
        with anyio.CancelScope(shield=True):
            run = await self._hub.submit(assignment)
        assert run is not None, "nothing cancels within the shield"
        return {"resultType": "task", **_told(run, _id(run, view), "working")}

    def listening(self, inner: Listen) -> Listen:
        """Return a handler of `subscriptions/listen` that also tells of tasks, around one that tells of the rest."""

        async def listen(
            ctx: Context, params: types.SubscriptionsListenRequestParams
        ) -> types.SubscriptionsListenResult:
            wanted = (params.notifications.model_extra or {}).get("taskIds")
            if not isinstance(wanted, list) or not wanted:
                return await inner(ctx, params)
            if not declares_tasks(ctx):
                raise tasks_missing("subscriptions/listen with taskIds")
            asked = [each for each in cast("list[object]", wanted)[:MAX_FOLLOWED] if isinstance(each, str)]
            found = [task_id for task_id in dict.fromkeys(asked) if await self._is_there(ctx, task_id)]
            session = _Acknowledging(ctx.session, found)
            result: types.SubscriptionsListenResult | None = None
            async with anyio.create_task_group() as group:
                for task_id in found:
                    group.start_soon(self._follow, ctx, task_id, session.acknowledged)
                amended = replace(ctx, session=cast("ServerSession", session))
                result = await inner(amended, params)
                group.cancel_scope.cancel()
            assert result is not None, "the group is cancelled with the result in hand"
            return result

        return listen

    # The methods

    async def _get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        run, view = await self._task(ctx, params.task_id)
        return {"resultType": "complete", **self._detailed(ctx, run, view)}

    async def _update(self, ctx: Context, params: TaskUpdateParams) -> dict[str, Any]:
        run, _ = await self._task(ctx, params.task_id)
        asked = asked_by(run.questions, of=principal_of(ctx), client=_client(ctx), notes={})
        wrong: list[str] = []
        for key, response in params.input_responses.items():
            if key not in asked:  # never asked, or answered already: to be ignored (SEP-2663, task update requests)
                continue
            try:
                result = types.ElicitResult.model_validate(response)
            except ValueError:
                wrong.append(f"the response to {key} is no result of elicitation/create")
                continue
            _, note = await give(self._hub, asked[key], result, by=principal_of(ctx))
            if note:
                wrong.append(f"{key}: {note}")
        if wrong:
            raise MCPError(types.INVALID_PARAMS, "; ".join(wrong))
        return {"resultType": "complete"}

    async def _cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        run, _ = await self._task(ctx, params.task_id)
        if not run.state.ended:
            try:
                await self._hub.cancel(principal_of(ctx), run.id)
            except RunEnded:
                log.debug("mcp_task_ended_before_cancel", run_id=run.id)
        return {"resultType": "complete"}

    async def _task(self, ctx: Context, task_id: str) -> tuple[Run, str]:
        check_name(ctx, task_id)
        if not declares_tasks(ctx):
            raise tasks_missing(ctx.method)
        return await self._find(ctx, task_id)

    async def _find(self, ctx: Context, task_id: str) -> tuple[Run, str]:
        view, _, run_id = task_id.rpartition(".")
        if view in self._views:
            try:
                run = await self._hub.run(principal_of(ctx), run_id)
            except RunNotFound:
                run = None
            if run is not None and self._agent_id in ("", run.agent_id):
                return run, view
        raise MCPError(types.INVALID_PARAMS, f"there is no task {task_id!r}")

    async def _is_there(self, ctx: Context, task_id: str) -> bool:
        try:
            await self._find(ctx, task_id)
        except MCPError:
            return False
        return True

    # What is said of a task

    def _detailed(self, ctx: Context, run: Run, view: str) -> dict[str, Any]:
        status = _STATUS[run.state]
        task_id = _id(run, view)
        if status == "input_required":
            client = _client(ctx)
            asked = asked_by(run.questions, of=principal_of(ctx), client=client, notes={})
            if client.asking is not Asking.NEVER and asked:
                requests = {key: _wire(types.ElicitRequest(params=each.form.params())) for key, each in asked.items()}
                return {**_told(run, task_id, status), "inputRequests": requests}
            # This client cannot be asked; the run waits for somebody who can (`answer`, the CLI, A2A).
            return _told(run, task_id, "working")
        if status == "completed":
            try:
                result = self._views[view](run)
            except MCPError as error:
                return {**_told(run, task_id, "failed"), "error": _wire(error.error)}
            return {**_told(run, task_id, status), "result": {"resultType": "complete", **_wire(result)}}
        return _told(run, task_id, status)

    async def _follow(self, ctx: Context, task_id: str, acknowledged: anyio.Event) -> None:
        """Tell of a task now, and whenever anything about it is another, until it has ended."""
        await acknowledged.wait()
        principal = principal_of(ctx)
        meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        last: dict[str, Any] = {}
        try:
            run, view = await self._find(ctx, task_id)
            after = run.generation
            while True:
                told = self._detailed(ctx, run, view)
                news = {key: value for key, value in told.items() if key != "lastUpdatedAt"}
                if news != last:
                    last = news
                    note = types.Notification[dict[str, Any], str](
                        method="notifications/tasks", params={**told, "_meta": meta}
                    )
                    await ctx.session.send_notification(cast("types.ServerNotification", note), ctx.request_id)
                if run.state.ended:
                    return
                after = await self._next(principal, run.id, after)
                run = await self._hub.run(principal, run.id)
        except RunNotFound:
            log.info("mcp_task_gone", task=task_id)
        except Exception:  # one task's trouble does not end the stream of the others
            log.exception("mcp_task_not_followed", task=task_id)

    async def _next(self, principal: Principal, run_id: str, after: int) -> int:
        """Wait for an event that may change what is said of a task; return its number."""
        events = self._hub.watch(principal, run_id, after=after)
        try:
            async for event in events:
                after = event.seq
                if event.kind in _NEWS:
                    break
        finally:
            await cast("Any", events).aclose()
        return after


class _Acknowledging:
    """A session whose acknowledgement of a subscription names the tasks that it tells of."""

    def __init__(self, session: ServerSession, task_ids: Sequence[str]) -> None:
        self._session = session
        self._task_ids = list(task_ids)
        self.acknowledged = anyio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    async def send_notification(
        self, notification: types.ServerNotification, related_request_id: types.RequestId | None = None
    ) -> None:
        if isinstance(notification, types.SubscriptionsAcknowledgedNotification):
            filters = notification.params.notifications.model_copy(update={"taskIds": self._task_ids})
            params = notification.params.model_copy(update={"notifications": filters})
            await self._session.send_notification(
                notification.model_copy(update={"params": params}), related_request_id
            )
            self.acknowledged.set()
            return
        await self._session.send_notification(notification, related_request_id)


def _client(ctx: Context) -> Client:
    return client_of(ctx.session.client_capabilities, ctx.protocol_version, back_channel=False)


def _wire(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def _id(run: Run, view: str) -> str:
    return f"{view}.{run.id}" if view else run.id


def _told(run: Run, task_id: str, status: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "taskId": task_id,
        "status": status,
        "createdAt": run.created_at.isoformat(),
        "lastUpdatedAt": run.updated_at.isoformat(),
        # Runs are kept until an operator removes them.
        "ttlMs": None,
        "pollIntervalMs": POLL_INTERVAL_MS,
    }
    if message := _message(run):
        told["statusMessage"] = message[:_TOLD_CHARS]
    return told


def _message(run: Run) -> str:
    if run.questions:
        asks = [f"{question.agent_id or 'the run'} asks: {question_text(question.parts)}" for question in run.questions]
        return "; ".join(asks)
    if run.error is not None:
        return run.error.message
    if run.state.ended or not run.steps:
        return ""
    done = sum(step.state is RunState.COMPLETED for step in run.steps)
    at_work = [step.title or step.path for step in run.steps if step.state is RunState.WORKING]
    said = f"{done} of {len(run.steps)} steps done"
    return f"{said}; at work: {', '.join(at_work)}" if at_work else said
