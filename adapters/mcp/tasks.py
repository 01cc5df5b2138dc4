"""A call that its server goes on with as a task (SEP-2663): followed by the task's id until it has ended, or asks.

The server tells of the task where it is listened to; where it is not, it is asked at the interval that it says. The id
is good for any session with the server, so a call can be taken up again by another process.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import anyio
import structlog
from mcp import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, encode_header_value
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND

from interhub.adapters.base import Outcome, Progress, Report, Resume, TaskBound
from interhub.adapters.errors import (
    AdapterError,
    ProtocolViolation,
    RemoteCanceled,
    RemoteRefused,
    RemoteUnavailable,
)
from interhub.agent_cards import Json, JsonObject

from .content import completed, elicit_results, question
from .session import McpSession

TASKS = "io.modelcontextprotocol/tasks"
"""The extension's identifier."""
_POLL_S = 1.0
"""Between two questions about a task whose server does not say."""
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.05, 60.0
_LISTENED_POLL_S = 30.0
"""Between two questions about a task that the server tells of by itself: against what gets lost."""
_MOST_FAILURES = 6
"""Times that a server may be out of reach, one after the other, while it works on a task."""
_MOST_LISTENS = 5
_REQUEST_S = 60.0

log = structlog.get_logger()

Sessions = Callable[[], Awaitable[McpSession]]
"""Returns the open session with the server, opening one where there is none."""


class RemoteTask:
    """One task at a server. The Sink of the subscription to it."""

    owner = ""
    waiting = False
    askable = True

    def __init__(self, task_id: str, sessions: Sessions, report: Report, *, label: str) -> None:
        self.id = task_id
        self._sessions = sessions
        self._report = report
        self._label = label
        self._answered: set[str] = set()
        self._message = ""
        self._heard: JsonObject | None = None
        self._news = anyio.Event()
        self._listening = False

    async def find(self) -> JsonObject | None:
        """Return what the server says of the task; None when it knows none of that id.

        Raises:
            RemoteRefused: it does not say.
            AdapterError: it could not be reached.
        """
        try:
            return await self._send("tasks/get")
        except MCPError as error:
            if error.code in (INVALID_PARAMS, METHOD_NOT_FOUND):
                return None
            raise RemoteRefused(self._label, error.message, (), error.code) from error

    async def answer(self, resume: Resume) -> JsonObject:
        """Give the server the answer to what the task asked, and return what it says of the task then.

        Raises:
            RemoteRefused: it does not take the answer, or has forgotten the task.
            AdapterError: it could not be reached.
        """
        state = cast("JsonObject", resume.state)
        requests = cast("Mapping[str, JsonObject]", state["inputRequests"])
        before = state.get("answered")
        self._answered = {*(str(key) for key in before or ())} if isinstance(before, list) else set()
        try:
            await self._send("tasks/update", inputResponses=elicit_results(requests, resume))
        except MCPError as error:
            raise RemoteRefused(self._label, error.message, (), error.code) from error
        self._answered |= set(requests)
        told = await self.find()
        if told is None:
            raise RemoteRefused(self._label, f"it no longer knows the task {self.id} that asked")
        return told

    async def follow(self, told: JsonObject) -> Outcome:
        """Return how the task ended, or what it asks; `told` is what the server last said of it.

        Raises:
            RemoteRefused: the call failed, or the server has forgotten the task.
            RemoteCanceled: somebody else cancelled it.
            AdapterError: the server stays out of reach, or says what is no task.
        """
        await self._report(TaskBound(remote_task=self.id))
        outcome: Outcome | None = None
        failure: AdapterError | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            try:
                while (outcome := await self._settled(told)) is None:
                    told = await self._next(told)
            except AdapterError as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        assert outcome is not None, "the loop ends with an outcome or a failure"
        return outcome

    async def cancel(self) -> None:
        """Ask the server to stop the task; one that it does not know is none to stop.

        Raises:
            AdapterError: it could not be reached.
        """
        try:
            await self._send("tasks/cancel")
        except MCPError as error:
            log.info("mcp_task_not_canceled", agent=self._label, task=self.id, why=error.message)

    # How it stands

    async def _settled(self, told: JsonObject) -> Outcome | None:
        message = told.get("statusMessage")
        match told.get("status"):
            case "working":
                if isinstance(message, str) and message and message != self._message:
                    self._message = message
                    await self._report(Progress(text=message))
                return None
            case "input_required":
                return await self._asked(told)
            case "completed":
                return completed(self._object(told, "result"), self._label)
            case "failed":
                error = self._object(told, "error")
                code = error.get("code")
                why = str(error.get("message") or message or "its task failed")
                raise RemoteRefused(self._label, why, (), code if isinstance(code, int) else None)
            case "cancelled":
                raise RemoteCanceled(self._label, str(message or "its task was cancelled"))
            case status:
                raise ProtocolViolation(self._label, f"its task {self.id} is in the status {status!r}, which is none")

    async def _asked(self, told: JsonObject) -> Outcome | None:
        """Return what is asked; None while the server has not taken note that it was answered."""
        requests = cast("Mapping[str, JsonObject]", self._object(told, "inputRequests"))
        open_ones = {key: request for key, request in requests.items() if key not in self._answered}
        if not open_ones:
            return None
        state: JsonObject = {"task": self.id, "inputRequests": open_ones, "answered": sorted(self._answered)}
        try:
            return question(open_ones, state=state, raw={"inputRequests": open_ones}, label=self._label)
        except RemoteRefused:
            await self.cancel()  # it would wait for ever for what nobody gives it
            raise

    def _object(self, told: JsonObject, key: str) -> JsonObject:
        value = told.get(key)
        if not isinstance(value, Mapping):
            raise ProtocolViolation(self._label, f"its task {self.id} is {told.get('status')} and has no {key}")
        return value

    # Hearing of it

    async def _next(self, told: JsonObject) -> JsonObject:
        """Wait for what the server says of the task next, or ask it when the time has come."""
        with anyio.move_on_after(max(_LISTENED_POLL_S, _interval(told)) if self._listening else _interval(told)):
            await self._news.wait()
        heard, self._heard, self._news = self._heard, None, anyio.Event()
        if heard is not None:
            return heard
        for failures in range(_MOST_FAILURES):
            try:
                found = await self.find()
                break
            except RemoteUnavailable as error:
                if failures == _MOST_FAILURES - 1:
                    raise
                log.info("mcp_task_out_of_reach", agent=self._label, task=self.id, why=str(error))
            await anyio.sleep(min(0.25 * 2**failures, 8.0))
        else:
            raise AssertionError("the last failure is raised")
        if found is None:
            raise RemoteRefused(self._label, f"it no longer knows its task {self.id}")
        return found

    async def _listen(self) -> None:
        """Have the server tell of the task by itself, where it does."""
        wanted: JsonObject = {"notifications": {"taskIds": [self.id]}}
        for tries in range(_MOST_LISTENS):
            try:
                session = await self._sessions()
                await session.request("subscriptions/listen", wanted, sink=self)
            except MCPError as error:
                log.debug("mcp_task_not_told_of", agent=self._label, task=self.id, why=error.message)
                return
            except AdapterError as error:
                log.debug("mcp_task_listen_lost", agent=self._label, task=self.id, why=str(error))
            finally:
                self._listening = False
                self._news.set()  # who waits for it asks instead
            await anyio.sleep(min(0.5 * 2**tries, 10.0))

    async def notify(self, method: str, params: JsonObject) -> None:
        """Take what comes on the subscription."""
        if method == "notifications/tasks" and params.get("taskId") == self.id:
            self._heard = params
            self._news.set()
        elif method == "notifications/subscriptions/acknowledged":
            agreed = params.get("notifications")
            followed = agreed.get("taskIds") if isinstance(agreed, Mapping) else None
            self._listening = isinstance(followed, list) and self.id in followed

    async def ask(self, method: str, params: JsonObject) -> JsonObject:
        """Refuse: nothing is asked on a subscription."""
        raise MCPError(INVALID_PARAMS, f"{method} is not answered on a subscription")

    async def _send(self, method: str, **more: Json) -> JsonObject:
        session = await self._sessions()
        params: JsonObject = {"taskId": self.id, **more}
        return await session.request(method, params, headers=name_header(self.id), timeout_s=_REQUEST_S)


def name_header(task_id: str) -> dict[str, str]:
    """Return the header that repeats a request's task (SEP-2663, routing headers)."""
    return {MCP_NAME_HEADER: encode_header_value(task_id)}


def _interval(told: JsonObject) -> float:
    said = told.get("pollIntervalMs")
    seconds = said / 1000 if isinstance(said, int | float) else _POLL_S
    return min(max(seconds, _SHORTEST_POLL_S), _LONGEST_POLL_S)
