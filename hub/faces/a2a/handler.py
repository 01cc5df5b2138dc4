"""The hub as an A2A agent: the SDK's request handler over the hub's verbs. A task is a run, and has its id.

The SDK's own handler is not used: it keeps tasks in a store of its own, runs them in this process, and takes three to
four times as long (reference: a2a.md, sections 4 and 5).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

from a2a import types as a2a
from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.server.events import Event as StreamEvent
from a2a.server.request_handlers import RequestHandler
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    UnsupportedOperationError,
)
from a2a.utils.proto_utils import validate_proto_required_fields
from a2a.utils.task import (
    HistoryLengthConfig,
    apply_history_length,
    decode_page_token,
    encode_page_token,
    validate_history_length,
    validate_page_size,
)
from google.protobuf.message import Message as ProtoMessage
from starlette.types import Receive

from interhub.adapters import Message, Principal
from interhub.hub.errors import RunNotFound
from interhub.hub.faces.http import while_connected
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Answer, Event, EventKind, Run, RunState

from .cards import Cards
from .content import read_message, read_object
from .errors import in_a2a_words
from .request import assignment_of, wishes_of
from .task import (
    agent_of,
    answer_message,
    artifact_update,
    artifacts_of,
    final_update,
    history_of,
    is_answer,
    run_state_of,
    task_of,
    update_of,
)

PAGE_SIZE = 50
"""Tasks on a page where the caller names no number (A2A 1.0, section 3.1.4)."""

_ENDS = frozenset({EventKind.RUN_COMPLETED, EventKind.RUN_FAILED, EventKind.RUN_CANCELED})
_NO_PUSH = "this hub does not push; subscribe to the task, or ask for it"


class Caller(User):
    """The principal as the SDK knows users."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal

    @property
    def is_authenticated(self) -> bool:
        """Nobody gets this far without a key."""
        return True

    @property
    def user_name(self) -> str:
        """Name of the principal in records."""
        return self.principal.key


class HubHandler(RequestHandler):
    """Answers A2A requests, to the hub as a whole or, where the context names one, to one of its agents.

    The context's state holds `agent_id` (empty for the hub), `version` (of A2A), `facts` (for the canonical line) and
    the request's `receive`.
    """

    def __init__(self, hub: Hub, cards: Cards) -> None:
        self._hub = hub
        self._cards = cards

    async def on_message_send(
        self, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> a2a.Task | a2a.Message:
        """Begin a run, or answer what one asks, and return when it has ended or asks (or at once, if so asked).

        The answer is the task; or a message, where the one agent that was asked answered with one.
        """
        with in_a2a_words():
            run = await self._take(params, context)
            if not params.configuration.return_immediately:
                run = await self._wait(context, run)
                if run.as_message and run.state is RunState.COMPLETED:
                    return answer_message(run)
            return await self._task(context, run, params.configuration)

    async def on_message_send_stream(
        self, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[StreamEvent]:
        """Begin a run, or answer what one asks, and yield the task, then what happens until it has ended or asks."""
        with in_a2a_words():
            run = await self._take(params, context)
            yield await self._task(context, run, params.configuration)
            if run.state.ended or run.state.interrupted:
                return
            async with aclosing(self._follow(_principal(context), run)) as updates:
                async for update in updates:
                    yield update

    async def on_subscribe_to_task(
        self, params: a2a.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the task, then what happens until it has ended or asks (again).

        Raises:
            UnsupportedOperationError: the task has ended (A2A 1.0, section 3.1.6).
        """
        with in_a2a_words():
            _begin(params, context)
            run = await self._run(context, params.id)
            if run.state.ended:
                why = f"task {run.id} has ended ({run.state.value}): there is nothing to follow; use GetTask"
                raise UnsupportedOperationError(why)
            yield await self._task(context, run)
            async with aclosing(self._follow(_principal(context), run)) as updates:
                async for update in updates:
                    yield update

    async def on_get_task(self, params: a2a.GetTaskRequest, context: ServerCallContext) -> a2a.Task:
        """Return a task as it stands."""
        with in_a2a_words():
            _begin(params, context)
            validate_history_length(params)
            return await self._task(context, await self._run(context, params.id), params)

    async def on_list_tasks(self, params: a2a.ListTasksRequest, context: ServerCallContext) -> a2a.ListTasksResponse:
        """Return the caller's tasks, newest first, a page at a time.

        `total_size` is exact up to 1000: counting reads every row.
        """
        with in_a2a_words():
            _begin(params, context)
            validate_history_length(params)
            if params.HasField("page_size"):
                validate_page_size(params.page_size)
            size = params.page_size or PAGE_SIZE
            before = decode_page_token(params.page_token) if params.page_token else ""
            if params.page_token:
                await self._last_of_page(context, before)
            runs, more = await self._page(params, context, before=before, size=size)
            if params.include_artifacts:  # lists are told without what was made
                runs = [await self._hub.run(_principal(context), run.id) for run in runs]
            history = params.history_length if params.HasField("history_length") else None
            tasks = [
                task_of(
                    run,
                    history=[run.goal] if history != 0 else [],
                    artifacts=params.include_artifacts,
                    steps=False,
                )
                for run in runs
            ]
            return a2a.ListTasksResponse(
                tasks=tasks,
                next_page_token=encode_page_token(runs[-1].id) if more else "",
                page_size=size,
                total_size=await self._count(params, context),
            )

    async def on_cancel_task(self, params: a2a.CancelTaskRequest, context: ServerCallContext) -> a2a.Task:
        """Stop a task, down to its last leaf."""
        with in_a2a_words():
            _begin(params, context)
            run = await self._run(context, params.id)
            return await self._task(context, await self._hub.cancel(_principal(context), run.id))

    async def on_get_extended_agent_card(
        self, params: a2a.GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> a2a.AgentCard:
        """Return the card as an authenticated caller may see it.

        Raises:
            UnsupportedOperationError: the agent's card does not promise one (A2A 1.0, section 3.1.11).
        """
        with in_a2a_words():
            _begin(params, context)
            if _agent_id(context):
                raise UnsupportedOperationError("this agent has no extended card; its public card says everything")
            return await self._cards.extended(_principal(context), version=context.state["version"])

    async def on_create_task_push_notification_config(
        self, params: a2a.TaskPushNotificationConfig, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Refuse: the hub's cards say that it does not push."""
        raise PushNotificationNotSupportedError(_NO_PUSH)

    async def on_get_task_push_notification_config(
        self, params: a2a.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Refuse: the hub's cards say that it does not push."""
        raise PushNotificationNotSupportedError(_NO_PUSH)

    async def on_list_task_push_notification_configs(
        self, params: a2a.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> a2a.ListTaskPushNotificationConfigsResponse:
        """Refuse: the hub's cards say that it does not push."""
        raise PushNotificationNotSupportedError(_NO_PUSH)

    async def on_delete_task_push_notification_config(
        self, params: a2a.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Refuse: the hub's cards say that it does not push."""
        raise PushNotificationNotSupportedError(_NO_PUSH)

    # Messages

    async def _take(self, params: a2a.SendMessageRequest, context: ServerCallContext) -> Run:
        """Return the run that a message begins or goes on."""
        _begin(params, context)
        validate_history_length(params.configuration)
        if params.configuration.HasField("task_push_notification_config"):
            raise PushNotificationNotSupportedError(_NO_PUSH)
        principal = _principal(context)
        message = read_message(params.message)
        wishes = wishes_of({**read_object(params.metadata), **message.metadata}, within=_agent_id(context))
        if message.task_id:
            run = await self._run(context, message.task_id)
            run = await self._go_on(principal, run, message, wishes.question_id, declined=wishes.declined)
        else:
            agent = await self._hub.agent(principal, wishes.agent_id) if wishes.agent_id else None
            run = await self._hub.submit(assignment_of(message, wishes, principal=principal, agent=agent))
        _facts(context).update(run_id=run.id)
        return run

    async def _go_on(
        self, principal: Principal, run: Run, message: Message, question_id: str, *, declined: bool
    ) -> Run:
        """Take a message to a task that is there: the answer to what it asks, or the same message once more."""
        if message.context_id and message.context_id != run.context_id:
            # A2A 1.0, section 3.4.3.
            raise InvalidParamsError(f"context {message.context_id!r} is not that of task {run.id}")
        if message.message_id == run.goal.message_id:
            return run
        if any(is_answer(event, message.message_id) for event in await self._events(principal, run)):
            return run  # sent again, because the first answer to it was lost
        if run.state.interrupted:
            answer = Answer(parts=message.parts, accepted=not declined, message_id=message.message_id, by=principal)
            return await self._hub.answer(run.id, answer, question_id=question_id)
        if run.state.ended:
            what = f"task {run.id} has ended ({run.state.value}) and takes no more messages"
        else:
            what = f"task {run.id} is {run.state.value} and asks nothing now"
        raise UnsupportedOperationError(
            f"{what}; send a message without taskId, in the same contextId, to begin another"
        )

    # Runs

    async def _wait(self, context: ServerCallContext, run: Run) -> Run:
        """Return a run when it has ended or asks; as it was, to nobody, when the caller has hung up."""
        receive = cast(Receive, context.state["receive"])
        return await while_connected(receive, lambda: self._hub.wait(_principal(context), run.id)) or run

    async def _run(self, context: ServerCallContext, run_id: str) -> Run:
        run = await self._hub.run(_principal(context), run_id)
        agent_id = _agent_id(context)
        if agent_id and run.agent_id != agent_id:
            raise RunNotFound(run_id)
        _facts(context).update(run_id=run.id)
        return run

    async def _task(self, context: ServerCallContext, run: Run, asked: object = None) -> a2a.Task:
        """Write a run, with as much of its history as was asked for."""
        config = cast(HistoryLengthConfig, asked) if asked is not None else None
        if config is not None and config.HasField("history_length") and config.history_length == 0:
            return task_of(run)
        events = await self._events(_principal(context), run)
        return apply_history_length(task_of(run, history=history_of(run, events)), config)

    async def _events(self, principal: Principal, run: Run) -> list[Event]:
        """Return what has happened in a run up to the state given."""
        events: list[Event] = []
        while len(events) < run.generation:
            more = await self._hub.events(principal, run.id, after=len(events), limit=_EVENTS)
            if not more:
                break
            events += more
        return events

    async def _follow(self, principal: Principal, run: Run) -> AsyncGenerator[StreamEvent]:
        """Yield what happens after a run was as given, until it has ended or asks."""
        shown = {artifact.artifact_id for artifact in artifacts_of(run)}
        agents = {step.path: step.agent_id for step in run.steps}
        async with aclosing(_generator(self._hub.watch(principal, run.id, after=run.generation))) as events:
            async for event in events:
                if event.kind in _ENDS:
                    break
                if event.kind is EventKind.QUESTION_ASKED:
                    now = await self._hub.run(principal, run.id)
                    if now.state.interrupted:
                        yield final_update(now)
                        return
                    continue  # answered meanwhile
                agents[event.step] = agent_of(event) or agents.get(event.step, "")
                update = update_of(run, event, agents[event.step])
                if isinstance(update, a2a.TaskArtifactUpdateEvent):
                    shown.add(update.artifact.artifact_id)
                if update is not None:
                    yield update
        now = await self._hub.run(principal, run.id)
        for artifact in artifacts_of(now):
            if artifact.artifact_id not in shown:
                yield artifact_update(now, artifact)
        yield final_update(now)

    # Lists

    async def _page(
        self, params: a2a.ListTasksRequest, context: ServerCallContext, *, before: str, size: int
    ) -> tuple[list[Run], bool]:
        """Return the runs of one page, and whether there are more."""
        found: list[Run] = []
        async for run in self._matching(params, context, before=before):
            if len(found) == size:
                return found, True
            found.append(run)
        return found, False

    async def _count(self, params: a2a.ListTasksRequest, context: ServerCallContext) -> int:
        count = 0
        async for _ in self._matching(params, context, before=""):
            count += 1
            if count == _COUNTED:
                break
        return count

    async def _matching(
        self, params: a2a.ListTasksRequest, context: ServerCallContext, *, before: str
    ) -> AsyncIterator[Run]:
        principal, agent_id = _principal(context), _agent_id(context)
        since = params.status_timestamp_after.ToDatetime(UTC) if params.HasField("status_timestamp_after") else None
        state = run_state_of(params.status)
        while True:
            runs = await self._hub.runs(
                principal, state=state, context_id=params.context_id, limit=_CHUNK, before=before
            )
            for run in runs:
                if (not agent_id or run.agent_id == agent_id) and (since is None or _utc(run.updated_at) > since):
                    yield run
            if len(runs) < _CHUNK:
                return
            before = runs[-1].id

    async def _last_of_page(self, context: ServerCallContext, run_id: str) -> None:
        try:
            await self._run(context, run_id)
        except RunNotFound as error:
            raise InvalidParamsError("the page token is not one of this list") from error


_CHUNK = 200
_COUNTED = 1000
_EVENTS = 1000


async def _generator(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
    """Make an iterator closable: what reads a stream to its middle must end it."""
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _begin(params: ProtoMessage, context: ServerCallContext) -> None:
    validate_proto_required_fields(params)
    principal = _principal(context)
    tenant = context.tenant
    if tenant and tenant != principal.tenant:
        raise InvalidParamsError("this agent's card names no tenant; leave it out")
    _facts(context).update(a2a=type(params).__name__.removesuffix("Request"), a2a_version=context.state["version"])


def _principal(context: ServerCallContext) -> Principal:
    return cast(Caller, context.user).principal


def _agent_id(context: ServerCallContext) -> str:
    return cast(str, context.state["agent_id"])


def _facts(context: ServerCallContext) -> dict[str, object]:
    return cast("dict[str, object]", context.state["facts"])


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
