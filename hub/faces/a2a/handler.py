"""The hub as an A2A agent: the SDK's request handler over the hub's verbs. A task is a run, and has its id.

The SDK's own handler is not used: it keeps tasks in a store of its own, runs them in this process, and takes three to
four times as long (reference: a2a.md, sections 4 and 5).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from a2a import types as a2a
from a2a.server.context import ServerCallContext
from a2a.server.events import Event as StreamEvent
from a2a.server.request_handlers import RequestHandler
from a2a.utils.errors import (
    InvalidParamsError,
    UnsupportedOperationError,
)
from a2a.utils.task import (
    HistoryLengthConfig,
    apply_history_length,
    validate_history_length,
)
from starlette.types import Receive

from interhub.adapters import Message, Principal
from interhub.agent_cards import JsonObject
from interhub.hub.errors import RunNotFound
from interhub.hub.faces.http import while_connected
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Answer, EventKind, Run, RunState
from interhub.registry import Agent, AgentNotFound

from .calling import agent_of, begin, caller_of, check_extensions, facts_of, received, with_extensions
from .cards import Cards
from .content import read_object
from .errors import in_a2a_words
from .follow import beginning_of, follow, resume_after
from .lists import filter_of, page_begin_of, page_size_of, page_token_of
from .push import TaskPushes
from .request import Wishes, assignment_of, wishes_of
from .task import answer_message, history_of, is_answer, task_of
from .turns import Turns


class HubHandler(RequestHandler):
    """Answers A2A requests, to the hub as a whole or, where the context names one, to one of its agents.

    The context's state holds `agent_id` (empty for the hub), `version` (of A2A), `facts` (for the canonical line),
    `after` (where a stream is resumed) and the request's `receive`.
    """

    def __init__(self, hub: Hub, cards: Cards, pushes: TaskPushes, *, front_agent: str = "") -> None:
        """`front_agent` takes the messages to the hub that name no agent."""
        self._hub = hub
        self._cards = cards
        self._turns = Turns()
        self._front_agent = front_agent
        self._pushes = pushes

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
            after: int | None = None
            if params.message.task_id:
                yield await self._task(context, run, params.configuration)
                if run.state.ended or run.state.interrupted:
                    return
            else:
                # From the beginning, however far the run has come meanwhile: its first steps are not only a state.
                yield apply_history_length(task_of(beginning_of(run), history=[run.goal]), params.configuration)
                after = 1
            async with aclosing(follow(self._hub, caller_of(context), run, after=after)) as updates:
                async for update in updates:
                    yield update

    async def on_subscribe_to_task(
        self, params: a2a.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[StreamEvent]:
        """Yield the task, then what happens until it has ended or asks (again).

        With `Last-Event-ID`, what happened after that event, of a task that has ended as well.

        Raises:
            UnsupportedOperationError: the task has ended (A2A 1.0, section 3.1.6).
        """
        with in_a2a_words():
            begin(params, context)
            run = await self._run(context, params.id)
            after = resume_after(context.state["after"], run)
            if run.state.ended and after is None:
                why = f"task {run.id} has ended ({run.state.value}): there is nothing to follow; use GetTask"
                raise UnsupportedOperationError(why)
            yield await self._task(context, run)
            async with aclosing(follow(self._hub, caller_of(context), run, after=after)) as updates:
                async for update in updates:
                    yield update

    async def on_get_task(self, params: a2a.GetTaskRequest, context: ServerCallContext) -> a2a.Task:
        """Return a task as it stands."""
        with in_a2a_words():
            begin(params, context)
            validate_history_length(params)
            return await self._task(context, await self._run(context, params.id), params)

    async def on_list_tasks(self, params: a2a.ListTasksRequest, context: ServerCallContext) -> a2a.ListTasksResponse:
        """Return the caller's tasks, those that changed last first, a page at a time."""
        with in_a2a_words():
            begin(params, context)
            validate_history_length(params)
            size, after = page_size_of(params), page_begin_of(params.page_token)
            page = await self._hub.page(
                caller_of(context), filter_of(params, agent_of(context)), after=after, limit=size
            )
            runs = page.runs
            if params.include_artifacts:  # lists are told without what was made
                runs = tuple([await self._hub.run(caller_of(context), run.id) for run in runs])
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
                next_page_token=page_token_of(page.runs[-1]) if page.more else "",
                page_size=size,
                total_size=page.total,
            )

    async def on_cancel_task(self, params: a2a.CancelTaskRequest, context: ServerCallContext) -> a2a.Task:
        """Stop a task, down to its last leaf."""
        with in_a2a_words():
            begin(params, context)
            run = await self._run(context, params.id)
            return await self._task(context, await self._hub.cancel(caller_of(context), run.id))

    async def on_get_extended_agent_card(
        self, params: a2a.GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> a2a.AgentCard:
        """Return the card as an authenticated caller may see it.

        Raises:
            UnsupportedOperationError: the agent's card does not promise one (A2A 1.0, section 3.1.11).
        """
        with in_a2a_words():
            begin(params, context)
            if agent_of(context):
                raise UnsupportedOperationError("this agent has no extended card; its public card says everything")
            return await self._cards.extended(caller_of(context), version=context.state["version"])

    async def on_create_task_push_notification_config(
        self, params: a2a.TaskPushNotificationConfig, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Begin to push what happens in a task."""
        with in_a2a_words():
            begin(params, context)
            run = await self._run(context, params.task_id)
            wanted = await self._pushes.wanted(params, context.state["version"])
            return await self._pushes.add(caller_of(context), run, wanted)

    async def on_get_task_push_notification_config(
        self, params: a2a.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> a2a.TaskPushNotificationConfig:
        """Return one of a task's push notification configurations, without what is secret in it."""
        with in_a2a_words():
            _about(params, context)
            return await self._pushes.get(await self._run(context, params.task_id), params.id)

    async def on_list_task_push_notification_configs(
        self, params: a2a.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> a2a.ListTaskPushNotificationConfigsResponse:
        """Return a task's push notification configurations, without what is secret in them."""
        with in_a2a_words():
            begin(params, context)
            run = await self._run(context, params.task_id)
            return await self._pushes.list(run, size=params.page_size, token=params.page_token)

    async def on_delete_task_push_notification_config(
        self, params: a2a.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Push no more to one of a task's configurations."""
        with in_a2a_words():
            _about(params, context)
            await self._pushes.delete(await self._run(context, params.task_id), params.id)

    # For the entrance

    async def begin_plainly(
        self, principal: Principal, agent_id: str, message: Message, metadata: JsonObject
    ) -> Run | None:
        """Return the run that a message without a task begins; None where extensions must be declared.

        Raises:
            HubError, RegistryError: nothing was begun.
        """
        wishes = self._addressed(wishes_of({**metadata, **message.metadata}, within=agent_id))
        agent = await self._hub.agent(principal, wishes.agent_id) if wishes.agent_id else None
        if agent is not None and any(extension.required for extension in agent.card.extensions):
            return None
        return await self._begin(principal, message, wishes, agent, waited=True)

    async def settled(self, principal: Principal, run_id: str, timeout_s: float | None = None) -> Run:
        """Return a run when it has ended or asks, or as it stands when the time is up."""
        return await self._hub.wait(principal, run_id, timeout_s=timeout_s)

    async def found(self, principal: Principal, agent_id: str, run_id: str) -> Run:
        """Return a run as it stands.

        Raises:
            RunNotFound: there is none of that id here, or it is somebody else's.
        """
        run = await self._hub.run(principal, run_id)
        if agent_id and run.agent_id != agent_id:
            raise RunNotFound(run_id)
        return run

    async def history(self, principal: Principal, run: Run) -> list[Message]:
        """Return the dialogue of a run."""
        return history_of(run, await self._hub.dialogue(principal, run.id, upto=run.generation))

    # Messages

    async def _take(self, params: a2a.SendMessageRequest, context: ServerCallContext) -> Run:
        """Return the run that a message begins or goes on."""
        begin(params, context)
        validate_history_length(params.configuration)
        wanted = None
        if params.configuration.HasField("task_push_notification_config"):
            config = params.configuration.task_push_notification_config
            wanted = await self._pushes.wanted(config, context.state["version"])
        principal = caller_of(context)
        message = received(params.message)
        wishes = wishes_of({**read_object(params.metadata), **message.metadata}, within=agent_of(context))
        if message.task_id:
            run = await self._run(context, message.task_id)
            await self._check_extensions(run.agent_id, params, context)
            async with self._turns.take(run.id) as waited:
                run = await self._go_on(context, run.id, message, wishes, waited=waited)
        else:
            wishes = self._addressed(wishes)
            agent = await self._hub.agent(principal, wishes.agent_id) if wishes.agent_id else None
            if agent is not None:
                check_extensions(agent, params.message, context)
                message = with_extensions(message, agent, context)
            waited = not params.configuration.return_immediately
            run = await self._begin(principal, message, wishes, agent, waited=waited)
        facts_of(context).update(run_id=run.id)
        if wanted is not None:
            await self._pushes.add(principal, run, wanted)
        return run

    def _addressed(self, wishes: Wishes) -> Wishes:
        if self._front_agent and not (wishes.agent_id or wishes.members or wishes.workflow is not None):
            return replace(wishes, agent_id=self._front_agent)
        return wishes

    async def _begin(
        self, principal: Principal, message: Message, wishes: Wishes, agent: Agent | None, *, waited: bool
    ) -> Run:
        assignment = assignment_of(message, wishes, principal=principal, agent=agent)
        return await self._hub.submit(replace(assignment, waited=waited))

    async def _go_on(
        self, context: ServerCallContext, run_id: str, message: Message, wishes: Wishes, *, waited: bool
    ) -> Run:
        """Take a message to a task that is there: the answer to what it asks, or the same message once more.

        Where other messages were `waited` for, what they led to comes first.
        """
        principal = caller_of(context)
        run = await self._hub.run(principal, run_id)
        if message.context_id and message.context_id != run.context_id:
            # A2A 1.0, section 3.4.3.
            raise InvalidParamsError(f"context {message.context_id!r} is not that of task {run.id}")
        if message.message_id == run.goal.message_id:
            return run
        events = await self._hub.dialogue(principal, run.id)
        if any(is_answer(event, message.message_id) for event in events):
            return run  # sent again, because the first answer to it was lost
        if waited or any(event.kind is EventKind.QUESTION_ANSWERED for event in events):
            run = await self._wait(context, run)  # what was sent before comes first
        if run.state.interrupted:
            answer = Answer(
                parts=message.parts,
                accepted=not wishes.declined,
                message_id=message.message_id,
                digest=wishes.digest,
                by=principal,
            )
            return await self._hub.answer(run.id, answer, question_id=wishes.question_id)
        if run.state.ended:
            what = f"task {run.id} has ended ({run.state.value}) and takes no more messages"
        else:
            what = f"task {run.id} is {run.state.value} and asks nothing now"
        raise UnsupportedOperationError(
            f"{what}; send a message without taskId, in the same contextId, to begin another"
        )

    async def _check_extensions(
        self, agent_id: str, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> None:
        if not agent_id:
            return
        try:
            agent = await self._hub.agent(caller_of(context), agent_id)
        except AgentNotFound:
            return  # it was removed while its task asked
        check_extensions(agent, params.message, context)

    # Runs

    async def _wait(self, context: ServerCallContext, run: Run) -> Run:
        """Return a run when it has ended or asks; as it was, to nobody, when the caller has hung up."""
        receive = cast(Receive, context.state["receive"])
        return await while_connected(receive, lambda: self._hub.wait(caller_of(context), run.id)) or run

    async def _run(self, context: ServerCallContext, run_id: str) -> Run:
        run = await self.found(caller_of(context), agent_of(context), run_id)
        facts_of(context).update(run_id=run.id)
        return run

    async def _task(self, context: ServerCallContext, run: Run, asked: object = None) -> a2a.Task:
        """Write a run, with as much of its history as was asked for."""
        config = cast(HistoryLengthConfig, asked) if asked is not None else None
        if config is not None and config.HasField("history_length") and config.history_length == 0:
            return task_of(run)
        return apply_history_length(task_of(run, history=await self.history(caller_of(context), run)), config)


def _about(
    params: a2a.GetTaskPushNotificationConfigRequest | a2a.DeleteTaskPushNotificationConfigRequest,
    context: ServerCallContext,
) -> None:
    """Begin with a request about one push notification configuration; in 0.3 its id may be left out."""
    if not params.id and context.state["version"].startswith("0."):
        params.id = params.task_id
    begin(params, context)
